"""How commands end: exit codes, messages, quiet and verbose, interrupts, JSON."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from vcmbench import cli
from vcmbench.cli.failures import explain
from vcmbench.errors import VcmbenchError

EXAMPLE = Path(__file__).parents[1] / "docs/examples/nearest-template"


def run(*arguments: str, cwd: Path | None = None, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "vcmbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def without(modules: str, *arguments: str, cwd: Path | None = None):
    """Run a command where `modules` cannot be imported."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(',')));"
        "from vcmbench.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, modules, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def fail_with(error: BaseException, monkeypatch, capsys, *options: str) -> tuple[int, str]:
    """Exit code and message of a command that raises `error`."""

    def broken(*_arguments):
        raise error

    monkeypatch.setattr("vcmbench.evaluate.run", broken)
    monkeypatch.setattr(sys, "argv", ["vcmbench", *options, "evaluate", "slater-koster"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (VcmbenchError("file: field: found 1, expected 2"), 2, "error: file: field: found 1"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "data.zip"),
            2,
            "error: data.zip: No such",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", b"f"),
            2,
            "error: f: Permission denied",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: output: No space left"),
        (ModuleNotFoundError("no e3nn", name="e3nn"), 2, "pip install 'vcmbench[models]'"),
        (ModuleNotFoundError("no a.b", name="a.b"), 2, "this needs a.b: pip install a"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "out of memory (Unable to allocate 9 GiB)"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
            1,
            "accelerator: CUDA out of memory: work on smaller pieces",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_is_no_bug_has_a_message_and_no_traceback(error, code, message, monkeypatch, capsys):
    found, text = fail_with(error, monkeypatch, capsys)
    assert found == code
    assert message in text
    assert "Traceback" not in text


def test_a_bug_keeps_its_traceback(monkeypatch):
    assert explain(ZeroDivisionError("division by zero")) is None
    assert explain(ModuleNotFoundError("no vcmbench.gone", name="vcmbench.gone")) is None

    def broken(*_arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("vcmbench.evaluate.run", broken)
    monkeypatch.setattr(sys, "argv", ["vcmbench", "evaluate", "slater-koster"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_verbose_shows_where_an_error_came_from():
    plain, verbose = run("evaluate", "nothing"), run("--verbose", "evaluate", "nothing")
    assert plain.returncode == verbose.returncode == 2
    assert "Traceback" not in plain.stderr
    assert "Traceback" in verbose.stderr
    assert verbose.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


def test_quiet_leaves_out_progress_and_verbose_adds_the_log(tmp_path):
    command = ("predict", "species-mean", "--output")
    normal, quiet, verbose = (
        run(*options, *command, str(tmp_path / str(number)))
        for number, options in enumerate(((), ("--quiet",), ("--verbose",)))
    )
    assert "prediction: " in normal.stderr
    assert "vcm-demo@1.0.0: " not in normal.stderr
    assert quiet.stderr.strip() == ""
    assert (tmp_path / "1/device-b.zarr.zip").is_file()
    assert "vcm-demo@1.0.0: " in verbose.stderr


@pytest.mark.parametrize(
    "words",
    [("-q", "-v", "data", "list"), ("-q", "data", "list", "-v"), ("data", "list", "-v", "-q")],
    ids=" ".join,
)
def test_quiet_and_verbose_exclude_each_other(words):
    result = run(*words)
    assert result.returncode == 2
    assert "--quiet and --verbose: found both" in result.stderr


def test_both_may_stand_after_the_command_too(tmp_path):
    command = ("predict", "species-mean", "--output")
    quiet = run(*command, str(tmp_path / "quiet"), "-q", "--json")
    verbose = run(*command, str(tmp_path / "verbose"), "--verbose")
    assert quiet.stderr.strip() == ""
    assert json.loads(quiet.stdout)[0]["id"] == "device-b"
    assert "vcm-demo@1.0.0: " in verbose.stderr
    both = run("-v", "data", "verify", "vcm-demo", "-v").stderr.splitlines()
    assert len(both) == len(set(both)), "a line of the log stands twice"


def test_every_command_takes_quiet_verbose_and_json():
    def leaves(command: object, path: str = "vcmbench") -> dict[str, object]:
        found = {}
        for name, sub in getattr(command, "commands", {}).items():
            found |= leaves(sub, f"{path} {name}")
        return found or {path: command}

    commands = leaves(get_command(cli.app))
    assert len(commands) > 25
    for path, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        expected = {"-q", "--quiet", "-v", "--verbose", "--json"}
        # The schema is JSON in any case.
        assert expected - options <= ({"--json"} if path == "vcmbench schema" else set()), path


@pytest.mark.parametrize("extra", ["torch", "hub", "sisl"])
def test_a_missing_extra_is_named_with_its_command(extra, tmp_path):
    module, command = {
        "torch": ("torch", ("train", str(EXAMPLE.parents[2] / "baselines/so2-local"))),
        "hub": ("huggingface_hub", ("data", "download", "vcm-nano@9.0.0")),
        "sisl": ("sisl", ("data", "export", "device-b", "device.TSHS")),
    }[extra]
    result = without(module, *command, cwd=tmp_path)
    assert result.returncode == 2
    assert f"pip install 'vcmbench[{extra}]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("module", "hint"),
    [("h5py", "an importable module: pip install 'vcmbench[importers]'"), ("not_there", "module")],
)
def test_a_models_own_missing_module_is_named(module, hint, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    card = yaml.safe_load((EXAMPLE / "model.yml").read_text())
    (folder / "model.yml").write_text(yaml.safe_dump(card))
    (folder / "model.py").write_text(f"import {module}\n")
    result = without(module, "evaluate", str(folder))
    assert result.returncode == 2
    assert f"{folder / 'model.yml'}: module: found 'model.py'" in result.stderr
    assert module in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_ends_at_once_and_says_that_work_is_kept(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "vcmbench", "evaluate", "species-mean", "--output", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "stages").is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to continue" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "result.json").exists()


_INTERRUPTED = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

module = sys.argv[1]
sys.meta_path.insert(0, Interrupt())
sys.argv = ["vcmbench", "data", "list"]
runpy.run_module("vcmbench", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["vcmbench.cli", "typer", "vcmbench.cli.train", "rich.console"])
def test_an_interrupt_during_the_imports_is_clean(module):
    """The signal arrives while `module` is being imported, long before a command has begun."""
    found = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, module],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.returncode == 130
    assert "Traceback" not in found.stderr


def test_the_installed_command_is_the_module():
    project = tomllib.loads((EXAMPLE.parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vcmbench": "vcmbench.__main__:main"}


def test_version_and_module():
    import vcmbench

    assert run("--version").stdout.strip() == vcmbench.__version__


def test_names_of_datasets_and_models_are_completed():
    def completed(words: str) -> list[str]:
        count = str(len(words.split()) - 1)
        environment = {"_VCMBENCH_COMPLETE": "complete_bash", "COMP_WORDS": words}
        return run(COMP_CWORD=count, **environment).stdout.split()

    assert completed("vcmbench evaluate sl") == ["slater-koster"]
    assert completed("vcmbench evaluate x --dataset vcm-d") == ["vcm-demo"]
    assert completed("vcmbench data verify vcm-n") == ["vcm-nano"]


def test_results_as_json(tmp_path):
    def output(*arguments: str) -> object:
        result = CliRunner().invoke(cli.app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    (fitted,) = output("fit", "species-mean", "--output", str(tmp_path / "model"))
    assert fitted["fitted to"] == ["device-a"]
    (predicted,) = output("predict", str(tmp_path / "model"), "--output", str(tmp_path / "p"))
    assert Path(predicted["store"]) == tmp_path / "p/device-b.zarr.zip"
    halves = ("--public", str(tmp_path / "public"), "--private", str(tmp_path / "private"))
    assert output("data", "hide", "vcm-demo", "--devices", "device-b", *halves)["withheld"] == [
        "device-b"
    ]
    folders = [str(tmp_path / name) for name in ("public", "private", "joined")]
    assert output("data", "join", *folders)["withheld"] == 0
