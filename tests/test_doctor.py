"""`vcmbench doctor` finds what is missing, damaged or out of reach, and says what to do."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version

import pytest
from fake_hub import serve_hub
from typer.testing import CliRunner

from vcmbench import doctor, extras
from vcmbench.cli import app


def checks(**options: bool) -> dict[tuple[str, str], doctor.Check]:
    return {(c.topic, c.name): c for c in doctor.examine(**{"network": False, **options})}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path))
    return tmp_path


def test_a_working_installation(cache):
    found = checks()
    assert {check.state for check in found.values()} <= {"ok", "absent"}
    assert "every byte verified" in found["data", "vcm-demo@1.0.0"].found
    assert "slater-koster" in found["baselines", "fitted"].found
    assert version("numpy") in found["environment", "dependencies"].found
    assert str(cache) in found["cache", "folder"].found


def test_json_and_exit_code(cache):
    result = CliRunner().invoke(app, ["doctor", "--json", "--offline", "--no-data"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert {"environment", "extras", "data", "cache", "Hub"} <= {row["topic"] for row in rows}
    assert not any("every byte" in row["found"] for row in rows)


def test_the_table_has_every_topic(cache):
    result = CliRunner().invoke(app, ["doctor", "--offline", "--no-data"])
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert {"environment", "extras", "programs", "baselines", "data", "Hub"} <= set(lines)


def test_a_damaged_download_is_a_problem(cache, demo):
    damaged = cache / "releases/vcm-demo@1.0.0"
    shutil.copytree(demo.folder, damaged)
    store = damaged / "devices/device-a.zarr.zip"
    content = bytearray(store.read_bytes())
    content[len(content) // 2] ^= 1
    store.write_bytes(content)
    found = checks()["data", "vcm-demo@1.0.0"]
    assert found.state == "problem"
    assert "device-a.zarr.zip" in found.found
    assert found.remedy == "vcmbench data download vcm-demo@1.0.0"
    result = CliRunner().invoke(app, ["doctor", "--offline", "--json"])
    assert result.exit_code != 0
    assert "device-a.zarr.zip" in str(result.exception)


def test_a_cache_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path / "file/cache"))
    found = checks(data=False)["cache", "folder"]
    assert found.state == "problem"
    assert "VCMBENCH_CACHE" in found.remedy


def test_an_extra_that_is_not_there(cache, monkeypatch):
    def lacking(name: str) -> str:
        if name == "pyarrow":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(extras, "version", lacking)
    found = checks(data=False)["extras", "[release]"]
    assert found.state == "absent"
    assert found.found == "pyarrow: not installed"
    assert found.remedy == "pip install 'vcmbench[release]'"


def test_a_dependency_that_is_too_old_is_a_problem(cache, monkeypatch):
    monkeypatch.setattr(extras, "version", lambda name: "0.1" if name == "zarr" else version(name))
    found = checks(data=False)["environment", "dependencies"]
    assert found.state == "problem"
    assert found.found.startswith("zarr: found 0.1, expected >=")


def test_the_hub_answers_or_does_not(cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serve_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        assert checks(data=False, network=True)["Hub", "access"].state == "ok"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    gone = checks(data=False, network=True)["Hub", "access"]
    assert gone.state == "absent"
    assert gone.remedy == "datasets at hand need no network"


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "torch"),
        ("e3nn.o3", "models"),
        ("mace", "models"),
        ("huggingface_hub", "hub"),
        ("torch_geometric", "torch"),
        ("numpy", None),
        ("pytest", None),
    ],
)
def test_which_extra_brings_a_module(module, extra):
    assert extras.extra_of(module) == extra
