"""The workflow files are thin: what they run are commands that exist, given nothing unquoted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
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
    found = []
    for step in steps(path):
        script = step.get("run", "")
        lines = [line.strip() for line in script.splitlines()]
        calls = [line.partition(" || ")[0] for line in lines if line.startswith("vcmbench ")]
        # Words that an array of the script adds to its calls.
        added = [word for text in re.findall(r"\+=\((.*?)\)", script) for word in text.split()]
        found += [[*shlex.split(call)[1:], *added] for call in calls]
    return found


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


def test_options_that_scripts_collect_are_looked_at_too():
    (score,) = commands(FOLDER / "score.yml")
    assert {"--work", "--private"} <= set(score)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_every_submission_that_a_pull_request_changes_is_validated(tmp_path):
    """The step itself, with a command that notes what it is given and refuses one of them."""
    (script,) = [
        s["run"] for s in steps(FOLDER / "submission.yml") if "validate" in s.get("run", "")
    ]
    proposed = tmp_path / "proposed"
    board = proposed / "leaderboard/submissions"
    for name in ("same", "changed", "reduced", "removed"):
        (board / name).mkdir(parents=True)
        for file in ("result.json", "submission.yml"):
            (board / name / file).write_text(name + file)
    git(proposed.parent, "init", "-q", "proposed")
    git(proposed, "add", "-A")
    git(proposed, "commit", "-qm", "base")
    base = git(proposed, "rev-parse", "HEAD")
    (board / "changed/result.json").write_text("other")
    (board / "reduced/result.json").unlink()
    shutil.rmtree(board / "removed")
    (board / "new one\n$(touch pwned)").mkdir()
    (board / "new one\n$(touch pwned)/result.json").write_text("x")
    (board / "stray.yml").write_text("x")
    git(proposed, "add", "-A")
    git(proposed, "commit", "-qm", "head")
    command = tmp_path / "bin/vcmbench"
    command.parent.mkdir()
    command.write_text(
        '#!/bin/sh\nprintf "%s\\0" "$3" >> "$NOTES"\ncase "$3" in *reduced) exit 2;; esac\n'
    )
    command.chmod(0o755)
    environment = {
        **os.environ,
        "BASE": base,
        "NOTES": str(tmp_path / "notes"),
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
    )
    validated = (tmp_path / "notes").read_text().split("\0")[:-1]
    assert {Path(path).name for path in validated} == {
        "changed",
        "reduced",
        "new one\n$(touch pwned)",
        "stray.yml",
    }
    assert ran.returncode == 2
    assert not list(tmp_path.rglob("pwned"))


def test_a_pull_request_is_checked_with_the_code_of_the_main_branch_and_no_secrets():
    document = load(FOLDER / "submission.yml")
    assert "secrets." not in (FOLDER / "submission.yml").read_text(encoding="utf-8")
    assert "pull_request_target" not in document[True]  # YAML reads "on" as true.
    (install,) = [s["run"] for s in steps(FOLDER / "submission.yml") if "pip" in s.get("run", "")]
    assert "./trusted" in install
