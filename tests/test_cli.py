"""The command line: exit codes, messages, start-up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.scores.result import schema_text


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from vcmbench.cli import main; sys.argv[0] = 'vcmbench'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_start_up_imports_nothing_heavy():
    code = "import sys, vcmbench.cli; print(*sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "scipy", "zarr", "torch", "pydantic", "matplotlib"} & set(modules)


def test_help_lists_the_commands():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("evaluate", "data", "fit", "schema"):
        assert command in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("evaluate", "slater-kostr"),
            "unknown model 'slater-kostr'; did you mean 'slater-koster'",
        ),
        (("evaluate", "slater-koster", "--dataset", "vcm-dmo"), "did you mean 'vcm-demo'"),
        (("evaluate", "slater-koster", "--split", "tests"), "did you mean 'test'"),
        (
            ("evaluate", "slater-koster", "--devices", "device-x"),
            "unknown device of vcm-demo@1.0.0",
        ),
        (("data", "info", "nothing.zarr.zip"), "nothing.zarr.zip: no such store"),
        (("data", "verify", "vcm-dem"), "did you mean 'vcm-demo'"),
        (("leaderboard", "score", "nothing"), "nothing: folder: found none, or a link"),
        (("leaderboard", "build", "--leaderboard", "nothing"), "nothing: hardware.yml: found no"),
        (("submit", "pack", "x", "--result", "nothing"), "nothing/result.json: No such file"),
    ],
)
def test_a_users_mistake_ends_with_its_message_and_exit_code_2(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert result.stderr.strip().startswith("error: ")


def test_a_folder_that_cannot_be_written_ends_with_its_name_and_exit_code_2(tmp_path):
    (tmp_path / "a file").touch()
    halves = ("--public", str(tmp_path / "a file" / "x"), "--private", str(tmp_path / "p"))
    result = run("data", "hide", "vcm-demo", "--devices", "device-b", *halves)
    assert result.returncode == 2
    assert f"error: {tmp_path / 'a file'}" in result.stderr
    assert "Traceback" not in result.stderr


def test_interrupt_says_how_to_continue_and_exits_130(monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("vcmbench.evaluate.run", interrupted)
    outcome = CliRunner().invoke(app, ["evaluate", "slater-koster"])
    assert outcome.exit_code == 130
    assert "run the same command again" in outcome.stderr


def test_a_damaged_download_hides_no_other_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path))
    manifest = tmp_path / "releases/damaged@1.0.0/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{")
    result = CliRunner().invoke(app, ["data", "list", "--json"])
    assert result.exit_code == 0
    assert "vcm-demo" in {row["name"] for row in json.loads(result.stdout)}
    assert f"not listed: {manifest}" in result.stderr


def test_paths_are_shown_as_they_are(tmp_path):
    """Neither wrapped nor read as markup."""
    folder = tmp_path / f"a [red] {'long ' * 20}name"
    folder.symlink_to(Path(__file__).parents[1] / "releases/vcm-demo")
    result = run("data", "verify", str(folder))
    assert str(folder) in result.stdout


def test_data_list_info_and_verify():
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["data", "list", "--json"]).output)
    assert {"vcm-demo"} <= {row["name"] for row in listed}
    described = json.loads(runner.invoke(app, ["data", "info", "vcm-demo", "--json"]).output)
    assert described["parts"] == {"train": 1, "test": 1}
    first, second = described["devices"]
    assert [first["id"], first["part"], first["lead"]] == ["device-a", "train", "lead-tin"]
    assert [second["id"], second["part"]] == ["device-b", "test"]
    assert [first["n_sites"], first["n_orbitals"]] == [294, 2052]
    assert [first["n_vacancies"], second["n_vacancies"]] == [4, 2]
    verified = runner.invoke(app, ["data", "verify", "vcm-demo"])
    assert verified.exit_code == 0
    assert "as released" in verified.output


def test_published_schema_is_the_one_of_the_code():
    published = (Path(__file__).parents[1] / "docs/result.schema.json").read_text()
    assert published == schema_text()
    assert CliRunner().invoke(app, ["schema"]).output == published
