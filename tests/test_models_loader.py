"""Everything that a model may be given as, and what is said of each mistake."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import yaml
from model_toys import CUTOFF, SMALL, make_structure, noise

from vcmbench.device import Device, Provenance
from vcmbench.errors import VcmbenchError
from vcmbench.fit import RECIPES
from vcmbench.models import load_model
from vcmbench.models.loader import known_baselines
from vcmbench.models.slater_koster_fit import fit_slater_koster
from vcmbench.store import write_predictions

CARD = {
    "schema_version": 1,
    "name": "mine",
    "version": "1",
    "description": "A model for tests.",
    "loader": "model.py:load",
    "authors": ["Nobody"],
    "license": "BSD-3-Clause",
    "cutoff_ang": 6.0,
    "n_parameters": 0,
}
MODEL = """
from pathlib import Path

from helper import FACTOR
from vcmbench.models.slater_koster import load as load_weights

class Scaled:
    def __init__(self, model):
        self.model, self.cutoff_ang = model, model.cutoff_ang

    def predict(self, structure):
        return FACTOR * self.model.predict(structure)

def load(directory: Path):
    return Scaled(load_weights(directory))

def load_anywhere(directory, accelerator):
    model = load(directory)
    model.accelerator = accelerator
    return model

def wrong(directory):
    return 3.0
"""


@pytest.fixture(scope="module")
def fitted():
    return fit_slater_koster([noise(make_structure(n_sites=12))], SMALL)


@pytest.fixture
def device():
    matrix = noise(make_structure(3))
    return Device("toy", "bulk", matrix, matrix, Provenance(code="random"))


@pytest.fixture
def folder(tmp_path, fitted):
    """A model directory with code of its own, which imports a file beside it."""
    directory = tmp_path / "mine"
    directory.mkdir()
    fitted.save(directory)
    (directory / "model.py").write_text(MODEL)
    (directory / "helper.py").write_text("FACTOR = 2.0\n")
    write(directory, CARD)
    yield directory
    sys.modules.pop("helper", None)


def write(directory, card) -> None:
    (directory / "model.yml").write_text(yaml.safe_dump(card))


def test_directory_with_its_own_code(folder, fitted, device):
    model = load_model(str(folder))
    assert (model.name, model.kind, model.predictions_folder) == ("mine", "directory", None)
    expected = 2 * fitted.predict(device.structure).values
    np.testing.assert_array_equal(model.predict(device).values, expected)
    assert model.info["version"] == "1"
    assert model.info["cutoff_ang"] == CUTOFF
    assert str(folder) not in sys.path


def test_digest_depends_on_every_file_and_on_nothing_else(folder):
    first = load_model(str(folder)).digest
    assert load_model(str(folder)).digest == first
    (folder / "notes.txt").write_text("x")
    assert load_model(str(folder)).digest != first
    assert len(first) == 64


def test_loader_of_an_installed_module(folder, fitted, device):
    write(folder, {**CARD, "loader": "vcmbench.models.slater_koster:load"})
    predicted = load_model(str(folder)).predict(device)
    np.testing.assert_array_equal(predicted.values, fitted.predict(device.structure).values)


def test_accelerator_goes_to_those_that_take_it(folder):
    with pytest.raises(VcmbenchError, match=r"accelerator: found cuda, expected cpu"):
        load_model(str(folder), accelerator="cuda")
    write(folder, {**CARD, "loader": "model.py:load_anywhere"})
    assert load_model(str(folder), accelerator="cuda").model.accelerator == "cuda"
    assert load_model(str(folder)).model.accelerator == "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff_ang": "wide"}, r"model\.yml: cutoff_ang: found 'wide', expected a valid number"),
        ({"cutoff_ang": -1.0}, r"model\.yml: cutoff_ang: found -1.0, expected greater than 0"),
        ({"authours": ["me"]}, r"model\.yml: authours: found an unknown field, expected 'authors'"),
        ({"version": None}, r"model\.yml: version: found None, expected a valid string"),
        ({"schema_version": 2}, r"model\.yml: schema_version: found 2, expected 1"),
        ({"inputs": ["overlap"]}, r"inputs\.0: found 'overlap', expected 'structure'"),
        ({"loader": "model.py"}, r"model\.yml: loader: found 'model\.py'"),
        ({"loader": "other.py:load"}, r"loader: found other\.py, expected a Python file in this"),
        ({"loader": "../out.py:load"}, r"loader: found \.\./out\.py, expected a Python file in"),
        ({"loader": "model.py:lead"}, r"no callable 'lead'"),
        ({"loader": "no.such.module:load"}, r"module: found 'no\.such\.module'"),
        ({"loader": "model.py:wrong"}, r"loader: found a float, expected an object with predict"),
        ({"training": {"dataset": "x"}}, r"training\.version: found nothing, expected a value"),
    ],
)
def test_wrong_card_is_explained(folder, change, message):
    (folder.parent / "out.py").write_text("load = print\n")
    write(folder, {**CARD, **change})
    with pytest.raises(VcmbenchError, match=message):
        load_model(str(folder))


def test_missing_field_and_broken_yaml(folder):
    write(folder, {name: value for name, value in CARD.items() if name != "license"})
    with pytest.raises(VcmbenchError, match=r"model\.yml: license: found nothing"):
        load_model(str(folder))
    (folder / "model.yml").write_text("name: [")
    with pytest.raises(VcmbenchError, match=r"model\.yml: not a YAML document"):
        load_model(str(folder))
    (folder / "model.yml").write_text("- a list\n")
    with pytest.raises(VcmbenchError, match=r"model\.yml: document: found"):
        load_model(str(folder))


def test_callable(folder, fitted, device, monkeypatch, tmp_path):
    (tmp_path / "own_models.py").write_text(
        "from pathlib import Path\nfrom vcmbench.models.slater_koster import load\n"
        f"def make(): return load(Path({str(folder)!r}))\n"
    )
    monkeypatch.chdir(tmp_path)
    model = load_model("own_models:make")
    assert (model.name, model.kind, model.digest) == ("own_models.make", "callable", None)
    np.testing.assert_array_equal(
        model.predict(device).values, fitted.predict(device.structure).values
    )
    with pytest.raises(VcmbenchError, match=r"own_models:mkae: function: found no callable 'mkae'"):
        load_model("own_models:mkae")
    with pytest.raises(VcmbenchError, match=r"module: found 'own_modles'"):
        load_model("own_modles:make")
    sys.modules.pop("own_models")


def test_predictions(tmp_path, fitted, device):
    folder = tmp_path / "run-7"
    matrix = fitted.predict(device.structure)
    write_predictions(folder, "toy", matrix, gauge="fermi")
    model = load_model(str(folder))
    assert (model.name, model.kind, model.predictions_folder) == ("run-7", "predictions", folder)
    np.testing.assert_allclose(model.predict(device).values, matrix.values, atol=5.1e-7)
    assert model.info["cutoff_ang"] is None
    with pytest.raises(VcmbenchError, match="cannot be asked for another structure"):
        model.model.predict(device.structure)
    other = Device("other", "bulk", matrix, matrix, Provenance(code="random"))
    with pytest.raises(VcmbenchError, match="no predictions for device 'other'"):
        model.predict(other)


def test_unknown_models(tmp_path):
    with pytest.raises(
        VcmbenchError, match=r"unknown model 'slater-kostr'; did you mean 'slater-k"
    ):
        load_model("slater-kostr")
    with pytest.raises(VcmbenchError, match=r"expected model\.yml of a model directory or DEVICE"):
        load_model(str(tmp_path))


def test_prediction_for_other_sites_is_refused(folder, device):
    (folder / "helper.py").write_text("FACTOR = 1.0\n")
    (folder / "model.py").write_text(
        MODEL.replace("(structure)\n", "(structure.permuted([*range(1, structure.n_sites), 0]))\n")
    )
    with pytest.raises(VcmbenchError, match="mine: prediction for toy: blocks: "):
        load_model(str(folder)).predict(device)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_a_baseline_that_travels_with_the_code(name):
    assert name in known_baselines()
    model = load_model(name)
    assert (model.name, model.kind) == (name, "baseline")
    assert model.card.n_parameters == model.model.n_parameters
    assert model.card.cutoff_ang == model.model.cutoff_ang == 12.0
    assert model.card.training.dataset == "vcm-nano"
