"""Prediction of whole devices: cut, shared or interrupted, the result is the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

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


class Counted(SlaterKoster):
    """Slater–Koster that counts its predictions, and may be stopped before one of them."""

    count = 0
    stop_at = -1

    def predict_blocks(self, pattern):
        if self.count == self.stop_at:
            raise KeyboardInterrupt
        object.__setattr__(self, "count", self.count + 1)
        return super().predict_blocks(pattern)


def counted(model, kind=Counted, stop_at=-1):
    there = model.model
    made = kind(there.basis, there.settings, there.sites, there.bonds)
    object.__setattr__(made, "stop_at", stop_at)
    return replace(model, model=made)


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
    whole = counted(model)
    predict(whole, [target], tmp_path / "whole", slab_ang=SLAB_ANG)
    stopped = counted(model, stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        predict(stopped, [target], tmp_path, slab_ang=SLAB_ANG)
    assert not (tmp_path / "wire.zarr.zip").exists()
    rest = counted(model)
    predict(rest, [target], tmp_path, slab_ang=SLAB_ANG)
    assert rest.model.count == whole.model.count - 2
    found = read(tmp_path, wire).align(expected.pattern)
    np.testing.assert_allclose(found.values, expected.values, atol=6e-7)


@pytest.mark.parametrize("slab_ang", [None, SLAB_ANG])
def test_finished_prediction_is_made_again_only_for_a_reason(model, target, tmp_path, slab_ang):
    def count(model=model, target=target, **options):
        made = counted(model)
        options = {"slab_ang": slab_ang, **options}
        (path,) = predict(made, [target], tmp_path, **options)
        return path, made.model.count

    path, n_slabs = count()
    assert n_slabs > 0
    assert count() == (path, 0)
    assert count(slab_ang=SLAB_ANG / 2)[1] > n_slabs
    assert count()[1] == n_slabs
    assert count(replace(model, digest="other"))[1] == n_slabs
    assert count()[1] == n_slabs
    moved = target.structure.moved(target.structure.positions + 0.01)
    assert count(target=Target("wire", moved))[1] == n_slabs
    assert count(accelerator="elsewhere")[1] == n_slabs
    assert count()[1] == n_slabs
    path.write_bytes(path.read_bytes()[:-100])
    assert count()[1] == n_slabs
    # A callable has no digest: nothing says that it is still the same.
    assert count(replace(model, digest=None))[1] == n_slabs
    assert count(replace(model, digest=None))[1] == n_slabs


class Doubled(Counted):
    def predict_blocks(self, pattern):
        return 2 * super().predict_blocks(pattern)


def test_slabs_of_another_model_are_not_used(model, target, wire, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict(counted(model, stop_at=3), [target], tmp_path, slab_ang=SLAB_ANG)
    doubled = replace(counted(model, Doubled), digest="x")
    predict(doubled, [target], tmp_path, slab_ang=SLAB_ANG)
    found = read(tmp_path, wire)
    expected = 2 * model.model.predict_blocks(found.pattern).values
    np.testing.assert_allclose(found.values, expected, atol=6e-7)


class Reordered(Counted):
    def predict_blocks(self, pattern):
        return super().predict_blocks(pattern).select(pattern.distance > 0)


def test_other_blocks_than_asked_for_are_refused(model, target, tmp_path):
    with pytest.raises(VcmbenchError, match=r"predict_blocks: found \d+ other blocks"):
        predict(counted(model, Reordered), [target], tmp_path)


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


class Both(Team):
    """A team of which each process waits for nobody: the test runs them in turn."""

    def wait(self):
        pass


def test_processes_share_the_slabs(model, target, wire, expected, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict(counted(model, stop_at=0), [target], tmp_path, slab_ang=SLAB_ANG)
    second, first = counted(model), counted(model)
    predict(second, [target], tmp_path, slab_ang=SLAB_ANG, team=Both(1, 2))
    finished = sorted((tmp_path / ".work/wire").iterdir())
    assert [int(path.stem) % 2 for path in finished] == [1] * second.model.count
    assert not (tmp_path / "wire.zarr.zip").exists()
    predict(first, [target], tmp_path, slab_ang=SLAB_ANG, team=Both(0, 2))
    assert 0 <= first.model.count - second.model.count <= 1
    found = read(tmp_path, wire).align(expected.pattern)
    np.testing.assert_allclose(found.values, expected.values, atol=6e-7)


def test_processes_share_the_structures_of_other_models(model, target, tmp_path):
    whole = replace(model, model=Whole(model.model))
    targets = [Target(name, target.structure) for name in ("a", "b", "c")]
    shares = []
    for rank in (0, 1):
        predict(whole, targets, tmp_path / str(rank), team=Both(rank, 2))
        shares.append({path.name[0] for path in (tmp_path / str(rank)).glob("*.zarr.zip")})
    assert shares == [{"a", "c"}, {"b"}]


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
