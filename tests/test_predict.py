"""Prediction of whole devices: cut, shared or interrupted, the result is the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from vcmbench.build.extxyz import write_extxyz
from vcmbench.device import Device
from vcmbench.errors import VcmbenchError
from vcmbench.models import load_model
from vcmbench.models.slater_koster import SlaterKoster
from vcmbench.predict import Target, predict
from vcmbench.processes import Team
from vcmbench.store import read_predictions

SLAB_ANG = 9.0


@pytest.fixture(scope="module")
def model():
    return load_model("slater-koster")


@pytest.fixture(scope="module")
def target(wire):
    return Target("wire", wire.structure)


@pytest.fixture(scope="module")
def expected(model, target):
    return model.model.predict(target.structure)


def read(folder, device: Device):
    return read_predictions(folder, device)


@dataclass
class Counted:
    """Slater–Koster that counts its slabs, and may be stopped before one of them."""

    model: SlaterKoster
    slabs: int = 0
    stop_at: int = -1

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict_blocks(self, pattern):
        if self.slabs == self.stop_at:
            raise KeyboardInterrupt
        self.slabs += 1
        return self.model.predict_blocks(pattern)


def counted(model, **options):
    return replace(model, model=Counted(model.model, **options))


@pytest.mark.parametrize("slab_ang", [None, SLAB_ANG])
def test_prediction_is_that_of_the_model(model, target, wire, expected, tmp_path, slab_ang):
    seen = []
    paths = predict(
        model, [target], tmp_path, slab_ang=slab_ang, progress=lambda *step: seen.append(step)
    )
    assert paths == [tmp_path / "wire.zarr.zip"]
    found = read(tmp_path, wire)
    np.testing.assert_allclose(found.align(expected.pattern).values, expected.values, atol=6e-7)
    n_slabs = seen[-1][2]
    assert seen[-1] == ("wire", n_slabs, n_slabs)
    assert (n_slabs > 3) == (slab_ang is not None)
    assert [path.name for path in (tmp_path / ".work").iterdir()] == ["wire.json"]


def test_interrupted_prediction_goes_on_from_its_slabs(model, target, wire, expected, tmp_path):
    stopped = counted(model, stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        predict(stopped, [target], tmp_path, slab_ang=SLAB_ANG)
    assert not (tmp_path / "wire.zarr.zip").exists()
    rest, again = counted(model), counted(model)
    predict(rest, [target], tmp_path, slab_ang=SLAB_ANG)
    found = read(tmp_path, wire).align(expected.pattern)
    np.testing.assert_allclose(found.values, expected.values, atol=6e-7)
    predict(again, [target], tmp_path, slab_ang=SLAB_ANG)
    assert again.model.slabs == 0
    # Other slabs, or another model, begin anew.
    predict(again, [target], tmp_path, slab_ang=SLAB_ANG / 2)
    n_slabs = again.model.slabs
    assert n_slabs > rest.model.slabs > 0
    predict(replace(again, digest="other"), [target], tmp_path, slab_ang=SLAB_ANG / 2)
    assert again.model.slabs == 2 * n_slabs


def test_slabs_of_another_model_are_not_used(model, target, wire, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict(counted(model, stop_at=3), [target], tmp_path, slab_ang=SLAB_ANG)
    doubled = Counted(model.model)
    doubled.predict_blocks = lambda pattern: 2 * model.model.predict_blocks(pattern)
    predict(replace(model, model=doubled, digest="x"), [target], tmp_path, slab_ang=SLAB_ANG)
    found = read(tmp_path, wire)
    expected = 2 * model.model.predict_blocks(found.pattern).values
    np.testing.assert_allclose(found.values, expected, atol=6e-7)


class Whole:
    """A model of which nothing is known but what every model has."""

    def __init__(self, model):
        self.cutoff_ang, self.predict = model.cutoff_ang, model.predict


def test_other_models_predict_in_one_piece(model, target, wire, expected, tmp_path):
    whole = replace(model, model=Whole(model.model))
    predict(whole, [target], tmp_path)
    found = read(tmp_path, wire).align(expected.pattern)
    np.testing.assert_allclose(found.values, expected.values, atol=6e-7)
    with pytest.raises(VcmbenchError, match="slabs: found a model without predict_blocks"):
        predict(whole, [target], tmp_path, slab_ang=SLAB_ANG)
    with pytest.raises(VcmbenchError, match="'wire' twice"):
        predict(whole, [target, target], tmp_path)


def test_each_process_does_its_own_share(model, target, tmp_path, monkeypatch):
    monkeypatch.setattr(Team, "wait", lambda self: None)
    shares = [counted(model), counted(model)]
    # The second comes first: what it left is there when the first puts all together.
    (tmp_path / ".work/wire").mkdir(parents=True)
    predict(shares[1], [target], tmp_path, slab_ang=SLAB_ANG, team=Team(1, 2))
    finished = sorted((tmp_path / ".work/wire").iterdir())
    assert [int(path.stem) % 2 for path in finished] == [1] * shares[1].model.slabs
    assert not (tmp_path / "wire.zarr.zip").exists()


def test_processes_of_torchrun_predict_as_one(wire, expected, tmp_path):
    pytest.importorskip("torch")
    write_extxyz(tmp_path / "wire.extxyz", wire.structure)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("--no-python", sys.executable, "-c", "from vcmbench.cli import main; main()"),
        *("predict", "slater-koster", str(tmp_path / "wire.extxyz")),
        *("--slab-ang", str(SLAB_ANG), "--output", str(tmp_path / "out")),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("prediction: ") == 1
    found = read(tmp_path / "out", wire)
    np.testing.assert_allclose(found.align(expected.pattern).values, expected.values, atol=1e-6)
