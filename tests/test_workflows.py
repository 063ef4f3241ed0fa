"""The workflow files are thin: what they run are commands that exist, given nothing unquoted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from vcmbench.cli import app

FOLDER = Path(__file__).parents[1] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[list[str]]:
    """Words of each call of ours."""
    lines = [line.strip() for step in steps(path) for line in step.get("run", "").splitlines()]
    calls = [line.partition(" || ")[0] for line in lines if line.startswith("vcmbench ")]
    return [shlex.split(call)[1:] for call in calls]


def test_there_is_one_for_each_task():
    names = {path.stem for path in WORKFLOWS}
    assert names == {"submission", "score", "site", "release-dataset", "asv"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_rights_are_declared_and_no_input_is_pasted_into_a_script(path):
    assert load(path)["permissions"]["contents"] in ("read", "write")
    for step in steps(path):
        assert "${{" not in step.get("run", ""), step
    for job in load(path)["jobs"].values():
        assert job["timeout-minutes"] <= 360


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_commands_and_options_exist(path):
    for words in commands(path):
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word for word in words if re.match(r"--\w", word)}
        assert used <= known, (path.name, words)


def test_a_pull_request_is_checked_with_the_code_of_the_main_branch_and_no_secrets():
    document = load(FOLDER / "submission.yml")
    assert "secrets." not in (FOLDER / "submission.yml").read_text(encoding="utf-8")
    assert "pull_request_target" not in document[True]  # YAML reads "on" as true.
    (install,) = [s["run"] for s in steps(FOLDER / "submission.yml") if "pip" in s.get("run", "")]
    assert "./trusted" in install
