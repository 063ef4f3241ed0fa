"""The documentation says what is so: code runs, commands exist, links lead somewhere."""

from __future__ import annotations

import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from rich.console import Console
from typer.main import get_command

import vcmbench
from vcmbench.cli import app
from vcmbench.cli.help import parts
from vcmbench.models import load_model
from vcmbench.report import print_result
from vcmbench.scores.hamiltonian import align, device_errors
from vcmbench.scores.result import read_result, schema_text

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in page.parts),
]
CARDS = sorted((ROOT / "data_cards").glob("*.md"))
EXAMPLE = ROOT / "docs/examples/nearest-template"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

FENCE = re.compile(r"(<!-- compile only[^>]*-->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    code: str
    runs: bool


def blocks(page: Path, language: str) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        note, name, code = found.groups()
        if name == language:
            yield Block(page, text[: found.start(3)].count("\n") + 1, code, note is None)


def with_blocks(language: str, pages: list[Path] = PAGES) -> list[Path]:
    return [page for page in pages if any(blocks(page, language))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- Python, JSON, YAML ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", with_blocks("python"), ids=name_of)
def test_python_runs(page, tmp_path, monkeypatch):
    """Blocks of a page share their names and run in order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        if block.runs:
            exec(code, names)


@pytest.mark.parametrize("page", sorted({*with_blocks("json"), *with_blocks("yaml")}), ids=name_of)
def test_documents_can_be_read(page):
    for block in blocks(page, "json"):
        json.loads(block.code)
    for block in blocks(page, "yaml"):
        yaml.safe_load(block.code)


def test_the_published_schema_is_the_current_one():
    assert (ROOT / "docs/result.schema.json").read_text(encoding="utf-8") == schema_text()


# --- shell ----------------------------------------------------------------------------------------


def commands(code: str) -> Iterator[list[str]]:
    """Words of each command of a shell block: no comments, no redirections."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            yield command[: command.index(">")] if ">" in command else command


def check(words: list[str], where: str) -> None:
    """Fail if a command does not exist, or would refuse its options."""
    if words[0] == "torchrun":
        assert "--no-python" in words, where
        words = words[words.index("--no-python") + 1 :]
    if words[0] == "vcmbench":
        check_own(words[1:], where)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), f"{where}: {words[1]}"
    elif words[:2] == ["pip", "install"]:
        for extra in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
            assert set(extra.split(",")) <= EXTRAS.keys(), f"{where}: {extra}"


def check_own(words: list[str], where: str) -> None:
    command, path = get_command(app), "vcmbench"
    while hasattr(command, "commands"):
        flags = {flag for parameter in command.params for flag in parameter.opts} | {"--help"}
        while words and words[0].startswith("-"):
            assert words[0] in flags, f"{where}: {path} has no {words[0]}"
            words = words[1:]
        if not words:
            return
        assert words[0] in command.commands, f"{where}: {path} has no command {words[0]}"
        command, path, words = command.commands[words[0]], f"{path} {words[0]}", words[1:]
    try:
        command.make_context(path, words)
    except Exception as error:  # Typer's own, under a name that changes between its versions.
        message = getattr(error, "message", None)
        if message is None:
            raise
        pytest.fail(f"{where}: {path} {shlex.join(words)}: {message}")


@pytest.mark.parametrize("page", with_blocks("sh", PAGES + CARDS), ids=name_of)
def test_commands_exist(page):
    for block in blocks(page, "sh"):
        for words in commands(block.code):
            check(words, f"{name_of(page)}:{block.line}")


def test_commands_named_in_the_text_exist():
    for page in PAGES:
        for text in re.findall(r"`(vcmbench [^`]+)`", page.read_text(encoding="utf-8")):
            words = text.split()[1:]
            command = get_command(app)
            while words and hasattr(command, "commands") and words[0] in command.commands:
                command, words = command.commands[words[0]], words[1:]
            known = {flag for parameter in command.params for flag in parameter.opts} | {"--help"}
            unknown = [word for word in words if word.startswith("--") and word not in known]
            assert not unknown, f"{name_of(page)}: {text}"


def every_command(command: object = None, path: str = "vcmbench") -> Iterator[tuple[str, object]]:
    command = command or get_command(app)
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, sub in command.commands.items():
        yield from every_command(sub, f"{path} {name}")


@pytest.mark.parametrize("path", [path for path, _ in every_command()])
def test_every_command_has_examples_that_it_accepts(path):
    command = dict(every_command())[path]
    _, examples = parts(command.callback)
    assert examples
    assert any(path in example for example in examples)
    for example in examples:
        for words in commands(example):
            check(words, path)


@pytest.mark.parametrize("page", with_blocks("console"), ids=name_of)
def test_commands_print_what_the_page_shows(page, monkeypatch):
    """A console block is one command after `$` and all of its standard output."""
    monkeypatch.setenv("COLUMNS", "100")
    for block in blocks(page, "console"):
        first, _, expected = block.code.partition("\n")
        words = shlex.split(first.removeprefix("$ vcmbench "))
        found = subprocess.run(
            [sys.executable, "-m", "vcmbench", *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        shown = "\n".join(line.rstrip() for line in found.stdout.splitlines())
        assert shown == expected.rstrip("\n"), f"{name_of(page)}:{block.line}"


@pytest.fixture(scope="module")
def printed() -> str:
    """What `vcmbench evaluate` prints of a real result whose model leaves out blocks."""
    result = read_result(ROOT / "leaderboard/submissions/slater-koster/result.json")
    support = result.hamiltonian.support.model_copy(update={"missing_blocks": 1})
    short = result.hamiltonian.model_copy(update={"support": support})
    result = result.model_copy(update={"hamiltonian": short})
    console = Console(file=io.StringIO(), width=100)
    print_result(result, console)
    return console.file.getvalue()


def test_lines_that_the_quick_start_explains_are_printed(printed):
    text = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    section = text.partition("| line | means |\n|---|---|\n")[2].partition("\n\n")[0]
    labels = [row.split(" | ")[0].removeprefix("| ") for row in section.splitlines()]
    assert len(labels) > 5
    for label in labels:
        words = label.replace("\\|", "|").removesuffix("…")
        assert f"│   {words}" in printed, label


def test_the_table_of_the_example_model_has_the_lines_that_are_printed(printed):
    (block,) = blocks(ROOT / "docs/evaluate-your-model.md", "text")
    rows = [line for line in block.code.splitlines() if line.startswith("│")]
    assert len(rows) > 15
    for row in rows:
        assert row.split("│")[1].rstrip() in printed, row


def test_every_extra_is_explained():
    text = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `\[([\w-]+)\]` \|", text, re.MULTILINE)) == EXTRAS.keys() - {"dev"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_row_of_a_table_stands_twice(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    twice = [a for a, b in itertools.pairwise(lines) if a.startswith("|") and a == b]
    assert not twice, name_of(page)


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text):
        if "://" in target or "generated/" in target:
            continue
        assert (page.parent / target).exists(), f"{name_of(page)}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """Links and anchors between pages, and every docstring of the reference."""
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "generated/cli.html", "generated/vcm-demo.html"} <= pages
    for page in tmp_path.rglob("*.html"):
        sources = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", page.read_text()
        )
        assert not sources, f"{page.name} needs a network"
    formulas = re.findall(r"<math.*?</math>", (tmp_path / "scores.html").read_text())
    assert len(formulas) > 20
    assert not [text for text in formulas if "\\" in text], "TeX that was not understood"


# --- the example model ----------------------------------------------------------------------------


def test_the_example_model_is_fitted_loaded_and_predicts(tmp_path):
    folder = tmp_path / "nearest-template"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.npz", "__pycache__"))
    subprocess.run([sys.executable, str(folder / "model.py")], check=True, cwd=ROOT)
    model = load_model(str(folder))
    release = vcmbench.load("vcm-demo")
    errors = {}
    for name in ("device-a", "device-b"):
        device = release.device(name)
        aligned = align(model.predict(device), device.pattern)
        scored = device_errors(name, device.hamiltonian, device.overlap, aligned)
        errors[name] = scored.statistic.mae_mev
    assert 0 < errors["device-a"] < 0.2 * errors["device-b"]
    stored = sum(
        array.size for name, array in model.model.templates.items() if name.endswith("/block")
    )
    assert stored == model.card.n_parameters
