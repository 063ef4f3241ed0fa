"""Fitting baselines to a release, and the weights that travel with the code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model_toys import CUTOFF, make_structure, noise
from release_toys import toy_release
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.device import Device, Provenance
from vcmbench.errors import VcmbenchError
from vcmbench.fit import fit
from vcmbench.models import load_model
from vcmbench.release import find_release
from vcmbench.scores import hamiltonian
from vcmbench.store import write_device


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "toy"
    for seed, name in enumerate(("first", "second")):
        structure = make_structure(seed, 12)
        matrix = noise(replace(structure, is_ghost=np.zeros(12, bool)), seed)
        gauge = "fermi" if seed == 0 else "raw"
        device = Device(name, "bulk", matrix, matrix, Provenance(code="random"), gauge=gauge)
        write_device(folder / f"devices/{name}.zarr.zip", device)
    return toy_release(folder, {"train": ("first",), "test": ("second",)}, support_ang=CUTOFF)


@pytest.mark.parametrize("name", ["species-mean", "slater-koster"])
def test_fit_writes_a_model_directory_with_its_origin(name, release, tmp_path):
    card = fit(name, release, ("first",), tmp_path / "a")
    model = load_model(str(tmp_path / "a"))
    assert model.card == card
    assert card.training.devices == {"first": release.manifest.devices["first"].digest}
    assert card.training.digest == release.manifest.digest
    device = release.device("first")
    predicted = model.predict(device).align(device.pattern)
    error = np.abs(predicted.values - device.hamiltonian.values)
    weight = np.repeat(device.pattern.weight, np.diff(device.pattern.offset))
    expected = 1e3 * (error * weight).sum() / weight.sum()
    assert card.training.mae_full_mev == pytest.approx(expected, abs=1e-4)


def test_fit_is_deterministic(release, tmp_path):
    for folder in ("a", "b"):
        fit("slater-koster", release, ("first",), tmp_path / folder)
    for file in ("model.yml", "weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_mistakes(release, tmp_path):
    with pytest.raises(VcmbenchError, match=r"did you mean 'slater-koster'"):
        fit("slaterkoster", release, ("first",), tmp_path)
    with pytest.raises(VcmbenchError, match=r"second: gauge: found raw, expected fermi"):
        fit("species-mean", release, ("second",), tmp_path)


def test_command(release, tmp_path):
    target = tmp_path / "model"
    arguments = ["fit", "species-mean", "--dataset", str(release.folder), "--output", str(target)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "species-mean" in result.output
    assert load_model(str(target)).card.training.dataset == "toy"


@pytest.mark.parametrize(
    ("name", "near_mev", "full_mev"),
    [("species-mean", 5.796, 1.910), ("slater-koster", 0.562, 0.187)],
)
def test_bundled_weights_predict_a_device_of_another_release(name, near_mev, full_mev):
    """The figures that the documentation quotes, on a device they were not fitted to."""
    device = find_release("vcm-demo").device("device-b")
    predicted = load_model(name).predict(device)
    aligned = hamiltonian.align(predicted, device.pattern)
    errors = hamiltonian.device_errors(device.id, device.hamiltonian, device.overlap, aligned)
    found = hamiltonian.score_device(errors)
    assert found.mae_mev == pytest.approx(near_mev, rel=0.005)
    assert found.mae_full_mev == pytest.approx(full_mev, rel=0.005)
    assert found.support.missing_blocks == found.support.extra_blocks == 0
    assert found.hermiticity.largest_mev < 1e-9


@pytest.mark.parametrize("name", ["species-mean", "slater-koster"])
def test_bundled_weights_are_frozen_with_vcm_nano(name):
    """Fitted to its training part and nothing else: their error is the unit of the skill."""
    release = find_release("vcm-nano@1.0.0")
    training = load_model(name).card.training
    assert training.digest == release.manifest.digest
    expected = {d: release.manifest.devices[d].digest for d in release.device_ids("train")}
    assert training.devices == expected
