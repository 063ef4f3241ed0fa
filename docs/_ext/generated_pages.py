"""Pages written from the package: one for the command line, one for each dataset's card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from typer.main import get_command

from vcmbench.cli import app as command_line
from vcmbench.cli.help import parts
from vcmbench.release.find import known_releases

FOLDER = "generated"


def write_pages(app: Sphinx) -> None:
    """Write all pages; one that has not changed keeps its date."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    _write(folder / "cli.md", cli_page())
    for name, release in known_releases().items():
        _write(folder / f"{name}.md", card_page(release))
        for image in release.glob("*.png"):
            shutil.copy(image, folder / f"{name}-{image.name}")


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def card_page(release: Path) -> str:
    """Page of a card: without the Hub's front matter and the markers of what is measured."""
    text = (release / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"<!-- (begin|end) \w+ -->\n", "", text)
    text = text.replace(" × ", "\u00a0×\u00a0")  # sides of a cell on one line
    return re.sub(r"\]\((\w+\.png)\)", rf"]({release.name}-\1)", text).lstrip()


def cli_page() -> str:
    """Write the reference of every command, as `--help` has it."""
    root = get_command(command_line)
    head = "# Command line\n\n`vcmbench COMMAND --help` says the same.\n"
    return head + "\n".join(_commands(root, "vcmbench", 2)) + "\n"


def _commands(command: Any, path: str, level: int) -> Iterator[str]:
    """Sections of a command and of those below it."""
    anchor = path.replace(" ", "-")
    yield f"\n({anchor})=\n{'#' * level} {path}\n"
    subcommands = getattr(command, "commands", {})
    description, examples = parts(command.callback) if not subcommands else (command.help, [])
    context = command.make_context(path, [], resilient_parsing=True)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield f"{_escaped(description)}\n\n```text\n{usage}\n```\n"
    if examples:
        yield "```sh\n" + "\n".join(examples) + "\n```\n"
    for parameter in command.params:
        names, text = parameter.get_help_record(context) or ("", "")
        if names:
            yield f"`{names}`\n: {_escaped(text)}\n"
    for name, sub in subcommands.items():
        summary = " ".join((sub.help or "").partition("\n\n")[0].split())
        yield f"- [`{path} {name}`](#{anchor}-{name}): {_escaped(summary)}"
    for name, sub in subcommands.items():
        yield from _commands(sub, f"{path} {name}", min(level + 1, 4))


def _escaped(text: str) -> str:
    """Help text as Markdown: nothing in it is markup."""
    return re.sub(r"([\[\]<>|*_#])", r"\\\1", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before sources are looked for."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
