"""ASV: what a user waits for before anything begins."""


class Import:
    """A fresh interpreter each time."""

    def timeraw_package(self) -> str:
        return "import vcmbench"

    def timeraw_command(self) -> str:
        return "from vcmbench.cli import app"

    def timeraw_evaluate(self) -> str:
        return "import vcmbench.evaluate"

    def timeraw_networks(self) -> str:
        return "import vcmbench.models.neural.model"
