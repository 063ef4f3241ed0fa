"""Pages written from the package: the command line, datasets' cards, agreement of T by device."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sphinx.application import Sphinx
from typer.main import get_command

from vcmbench.cli import app as command_line
from vcmbench.cli.help import parts
from vcmbench.documents import read_json
from vcmbench.release.find import known_releases
from vcmbench.scores.result import DeviceTransmission, Result, Unavailable

FOLDER = "generated"


def write_pages(app: Sphinx) -> None:
    """Write all pages; one that has not changed keeps its date."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    _write(folder / "cli.md", cli_page())
    submissions = Path(app.srcdir).parent / "leaderboard" / "submissions"
    _write(folder / "agreement.md", agreement_page(submissions))
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


class _Scored(NamedTuple):
    device: str
    model: str
    errors: DeviceTransmission


def agreement_page(submissions: Path) -> str:
    """Errors of T(E) of every submission on every device, from the results that came with them."""
    rows = sorted(
        _Scored(device, result.model.name, errors)
        for path in submissions.glob("*/result*.json")
        for result in [read_json(Result, path)]
        if not isinstance(result.transmission, Unavailable)
        for device, errors in result.transmission.devices.items()
        if not isinstance(errors, Unavailable)
    )
    columns = {
        "mean": "log10_mae",
        "signed": "log10_signed_mean",
        "p95": "log10_p95",
        "shifted": "shifted_log10_mae",
        "G": "conductance_log10_error",
        "I(V)": "current_log10_error",
        "∫\\|ΔT\\|/∫T": "integrated_difference",
    }
    lines = [
        "# Agreement of T(E), device by device\n",
        "Of the [leaderboard's](../submit.md) submissions, with the contacts of DFT, from "
        "`leaderboard/submissions/*/result*.json`. Mean, signed mean and 95th percentile of "
        "|Δlog10 T|, the mean after the best shift along E, conductance and current are in "
        "decades. [Transport](../transport.md) says what each of them asks.\n",
        "| device | model | " + " | ".join(columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for device, model, errors in rows:
        cells = " | ".join(f"{getattr(errors, field):.3f}" for field in columns.values())
        lines.append(f"| {device} | `{model}` | {cells} |")
    return "\n".join(lines) + "\n"


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
