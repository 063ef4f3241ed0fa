"""Harmonics and Wigner matrices in torch: those of numpy, also at the poles."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from vcmbench import harmonics  # noqa: E402
from vcmbench.models.neural.frames import WignerTables, real_harmonics  # noqa: E402
from vcmbench.models.neural.radial import envelope, splines  # noqa: E402
from vcmbench.models.radial import SplineBasis, decay  # noqa: E402

POLES = [[0, 0, 1.0], [0, 0, -2.0], [1.0, 0, 0], [1e-9, 0, 1.0], [0, -1e-9, -1.0]]


@pytest.fixture(scope="module")
def vectors():
    return np.concatenate([POLES, np.random.default_rng(0).normal(size=(20, 3))])


def directions(vectors):
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_harmonics_are_those_of_numpy(vectors):
    found = real_harmonics(5, torch.from_numpy(vectors)).numpy()
    for l in range(6):
        expected = np.sqrt(4 * np.pi) * harmonics.real_harmonics(l, vectors)
        np.testing.assert_allclose(found[:, l * l : (l + 1) ** 2], expected, atol=1e-13)


def test_wigner_matrices_carry_the_z_axis_onto_the_bond(vectors):
    for l, matrix in enumerate(WignerTables(5).by_degree(directions(vectors))):
        matrix = matrix.numpy()
        expected = harmonics.real_harmonics(l, vectors)
        axis = harmonics.real_harmonics(l, [0.0, 0, 1])
        np.testing.assert_allclose(matrix @ axis, expected, atol=1e-13)
        identity = np.broadcast_to(np.eye(2 * l + 1), matrix.shape)
        np.testing.assert_allclose(matrix @ matrix.transpose(0, 2, 1), identity, atol=1e-13)


def test_all_degrees_turn_alike(vectors):
    """D of degree 1 is the rotation itself; the others must be those of that rotation."""
    matrices = [matrix.numpy() for matrix in WignerTables(4).by_degree(directions(vectors))]
    back = np.argsort([1, 2, 0])
    rotation = matrices[1][:, back][:, :, back]
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-12)
    for l, matrix in enumerate(matrices):
        np.testing.assert_allclose(matrix, harmonics.wigner_d(l, rotation), atol=1e-12)


def test_radial_functions_are_those_of_numpy():
    distance = np.linspace(1.2, 8.5, 40)
    found = splines(torch.from_numpy(distance), 8.0, 7).numpy()
    np.testing.assert_allclose(found, SplineBasis(1.6, 8.0, 7)(distance), atol=1e-14)
    cut = np.maximum(1 - (distance / 8.0) ** 2, 0) ** 3
    found = envelope(torch.from_numpy(distance), 8.0).numpy()
    np.testing.assert_allclose(found, decay(distance) * cut, rtol=1e-12)
