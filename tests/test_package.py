"""The names a user imports first."""

from __future__ import annotations

import numpy as np
import pytest

import vcmbench


@pytest.mark.parametrize("name", vcmbench.__all__)
def test_public_names_exist(name):
    assert callable(getattr(vcmbench, name))


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Hamiltonian'"):
        _ = vcmbench.Hamiltonian


def test_load_predict_and_write_as_in_the_readme(tmp_path):
    release = vcmbench.load("vcm-demo")
    device = release.device("device-b")
    pattern = vcmbench.BlockPattern.from_structure(device.structure, device.basis, 12.0)
    assert np.array_equal(pattern.pair, device.pattern.pair)
    assert np.array_equal(pattern.shift, device.pattern.shift)
    matrix = vcmbench.BlockMatrix.zeros(pattern)
    path = vcmbench.write_predictions(str(tmp_path), device.id, matrix, gauge="fermi")
    assert path.name == "device-b.zarr.zip"
