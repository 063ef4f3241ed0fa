"""The `vcmbench` command: thin wrappers; every import of substance happens inside a command."""

from __future__ import annotations

import sys

import typer

from vcmbench.cli.build import build_structure
from vcmbench.cli.data import app as data_app
from vcmbench.cli.doctor import doctor
from vcmbench.cli.evaluate import evaluate, schema
from vcmbench.cli.export import export
from vcmbench.cli.failures import explain, log_traceback
from vcmbench.cli.fit import fit
from vcmbench.cli.help import show_examples
from vcmbench.cli.hub import download, publish
from vcmbench.cli.import_ import app as import_app
from vcmbench.cli.leaderboard import app as leaderboard_app
from vcmbench.cli.predict import predict
from vcmbench.cli.recipe import build
from vcmbench.cli.release import hide, join, release
from vcmbench.cli.splits import splits
from vcmbench.cli.submit import app as submit_app
from vcmbench.cli.throughput import throughput
from vcmbench.cli.train import train
from vcmbench.cli.transmission import transmission

app = typer.Typer(
    name="vcmbench",
    help="Datasets and scores for machine-learned DFT Hamiltonians of valence change memories.",
    epilog="Begin with: vcmbench doctor, then vcmbench evaluate slater-koster --quick",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("evaluate")(evaluate)
app.command("fit")(fit)
app.command("train")(train)
app.command("predict")(predict)
app.command("transmission")(transmission)
app.command("throughput")(throughput)
data_app.command("build-structure")(build_structure)
data_app.command("build")(build)
data_app.command("download")(download)
data_app.command("publish")(publish)
data_app.command("splits")(splits)
data_app.command("release")(release)
data_app.command("hide")(hide)
data_app.command("export")(export)
data_app.command("join")(join)
data_app.add_typer(import_app, name="import")
app.add_typer(data_app, name="data")
app.add_typer(submit_app, name="submit")
app.add_typer(leaderboard_app, name="leaderboard")
app.command("schema")(schema)
app.command("doctor")(doctor)
show_examples(app)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Results and errors only: no progress, no remarks."
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Show the log, and the traceback of an error."
    ),
) -> None:
    if version:
        from vcmbench import __version__

        typer.echo(__version__)
        raise typer.Exit
    if quiet or verbose:
        from vcmbench.cli.output import set_verbosity

        set_verbosity(quiet=quiet, verbose=verbose)


def main() -> None:
    """Run the command; `vcmbench.cli.failures` has the exit codes, Ctrl-C ends with 130."""
    try:
        app(prog_name="vcmbench")
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        log_traceback(error)
        typer.secho(f"error: {failure.message}", fg="red", err=True)
        sys.exit(failure.code)
