"""Harmonics against scipy's; Wigner matrices as a representation of O(3); the e3nn convention."""

from __future__ import annotations

import numpy as np
import pytest
from model_toys import make_structure, noise, orthogonal
from scipy.special import sph_harm_y

from vcmbench.basis import L_MAX
from vcmbench.harmonics import (
    E3NN_AXES,
    bond_frames,
    clebsch_gordan,
    coupling,
    real_harmonics,
    rotate_blocks,
    rotate_matrix,
    site_wigner_d,
    to_e3nn,
    wigner_d,
)

DEGREES = range(L_MAX + 1)
POINTS = np.random.default_rng(0).normal(size=(40, 3))
POLES = np.array([[0, 0, 1.0], [0, 0, -1.0], [1e-9, 0, -1.0], [0, 1e-17, 1.0], [1.0, 0, 0]])
ELEMENTS = np.stack([orthogonal(seed, proper=seed % 2 == 0) for seed in range(8)])


def scipy_harmonics(l: int, vectors: np.ndarray) -> np.ndarray:
    """Real harmonics made of scipy's complex ones, without the Condon-Shortley phase."""
    x, y, z = vectors.T
    theta, phi = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    columns = []
    for m in range(-l, l + 1):
        value = (-1) ** m * sph_harm_y(l, abs(m), theta, phi)
        columns.append(value.real if m == 0 else np.sqrt(2) * (value.real if m > 0 else value.imag))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("l", DEGREES)
def test_harmonics_are_scipys(l):
    vectors = np.concatenate([POINTS, POLES])
    np.testing.assert_allclose(real_harmonics(l, vectors), scipy_harmonics(l, vectors), atol=1e-13)
    np.testing.assert_allclose(real_harmonics(l, 3 * vectors), real_harmonics(l, vectors))


def test_order_and_phases_are_cp2ks():
    x, y, z = (POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)).T
    p = np.stack([y, z, x], axis=1) * np.sqrt(3 / (4 * np.pi))
    np.testing.assert_allclose(real_harmonics(1, POINTS), p, atol=1e-14)
    s3 = np.sqrt(3)
    d = [s3 * x * y, s3 * y * z, (3 * z**2 - 1) / 2, s3 * x * z, s3 / 2 * (x**2 - y**2)]
    expected = np.stack(d, axis=1) * np.sqrt(5 / (4 * np.pi))
    np.testing.assert_allclose(real_harmonics(2, POINTS), expected, atol=1e-14)


@pytest.mark.parametrize("l", DEGREES)
def test_wigner_matrices_turn_harmonics_as_rotating_the_points_does(l):
    turned = scipy_harmonics(l, (POINTS @ ELEMENTS.transpose(0, 2, 1)).reshape(-1, 3))
    found = np.einsum("rmn,pn->rpm", wigner_d(l, ELEMENTS), real_harmonics(l, POINTS))
    np.testing.assert_allclose(found.reshape(turned.shape), turned, atol=1e-13)


@pytest.mark.parametrize("l", DEGREES)
def test_wigner_matrices_represent_the_group(l):
    first, second = ELEMENTS, np.roll(ELEMENTS, 1, axis=0)
    product = wigner_d(l, first) @ wigner_d(l, second)
    np.testing.assert_allclose(wigner_d(l, first @ second), product, atol=1e-13)
    unit = wigner_d(l, first) @ wigner_d(l, first).transpose(0, 2, 1)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(2 * l + 1), unit.shape), atol=1e-13)
    np.testing.assert_allclose(wigner_d(l, -np.eye(3)), (-1) ** l * np.eye(2 * l + 1), atol=1e-14)


def test_site_matrix_is_block_diagonal_in_declared_order():
    rotation = ELEMENTS[1]
    found = site_wigner_d((0, 2, 1), rotation)
    np.testing.assert_allclose(found[1:6, 1:6], wigner_d(2, rotation))
    np.testing.assert_allclose(found[6:, 6:], wigner_d(1, rotation))
    assert found[0, 0] == 1
    assert np.abs(found[1:6, 6:]).max() == 0


def test_bond_frames_carry_z_onto_the_bond():
    vectors = np.concatenate([2 * POINTS, POLES])
    frames = bond_frames(vectors)
    np.testing.assert_allclose(
        frames @ frames.transpose(0, 2, 1), len(vectors) * [np.eye(3)], atol=1e-14
    )
    np.testing.assert_allclose(np.linalg.det(frames), 1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(frames[:, :, 2], unit, atol=1e-15)


def test_two_centre_blocks_do_not_depend_on_the_azimuth_of_the_frame():
    """Integrals equal for +m and -m: any frame with the bond along z gives the same block."""
    framed = np.zeros((len(POINTS), 8, 9))
    for m in range(-1, 2):
        framed[:, 6 + m, 2 + m] = 0.7 if m else 1.9  # p-p of shells (2, 1) and (0, 1, 2)
        framed[:, 2 + m, 6 + m] = 0.4 if m else -0.3  # d-d
    frames = bond_frames(POINTS)
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, len(POINTS))
    about = np.zeros((len(POINTS), 3, 3))
    about[:, 0, 0] = about[:, 1, 1] = np.cos(angle)
    about[:, 1, 0], about[:, 0, 1] = np.sin(angle), -np.sin(angle)
    about[:, 2, 2] = 1
    expected = rotate_blocks(framed, (2, 1), (0, 1, 2), frames)
    found = rotate_blocks(framed, (2, 1), (0, 1, 2), frames @ about)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    framed[:, 6, 3] = 1.0  # mixes m
    changed = rotate_blocks(framed, (2, 1), (0, 1, 2), frames @ about)
    assert np.abs(changed - rotate_blocks(framed, (2, 1), (0, 1, 2), frames)).max() > 0.1


def test_rotating_a_matrix_keeps_its_spectrum_and_is_undone_by_the_inverse():
    matrix = noise(make_structure(n_sites=12))
    turned = rotate_matrix(matrix, ELEMENTS[1])
    k = (0.1, 0.2, 0.3)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(turned.to_csr(k).toarray()),
        np.linalg.eigvalsh(matrix.to_csr(k).toarray()),
        atol=1e-12,
    )
    back = rotate_matrix(turned, ELEMENTS[1].T)
    np.testing.assert_allclose(back.values, matrix.values, atol=1e-13)
    assert np.abs(turned.values - matrix.values).max() > 0.1


@pytest.mark.parametrize(
    "degrees", [(0, 0, 0), (1, 1, 0), (1, 1, 2), (2, 1, 3), (2, 2, 4), (4, 4, 2)]
)
def test_couplings_are_equivariant_and_orthonormal(degrees):
    tensor = coupling(*degrees)
    rotation = ELEMENTS[3]
    d1, d2, d3 = (wigner_d(l, rotation) for l in degrees)
    np.testing.assert_allclose(
        np.einsum("ax,by,cz,xyz->abc", d1, d2, d3, tensor), tensor, atol=1e-13
    )
    flat = tensor.reshape(-1, tensor.shape[2])
    np.testing.assert_allclose(flat.T @ flat, np.eye(tensor.shape[2]), atol=1e-13)


def test_forbidden_couplings_vanish():
    assert np.abs(coupling(1, 1, 1)).max() == 0
    assert np.abs(coupling(0, 1, 3)).max() == 0


@pytest.mark.parametrize("l", DEGREES)
def test_e3nn_bridge(l):
    pytest.importorskip("torch").serialization.add_safe_globals([slice])
    o3 = pytest.importorskip("e3nn.o3")
    import torch

    def e3nn(vectors: np.ndarray) -> np.ndarray:
        tensor = torch.tensor(vectors, dtype=torch.float64)
        found = o3.spherical_harmonics(l, tensor, normalize=True, normalization="integral")
        return found.numpy()

    ours = real_harmonics(l, POINTS)
    np.testing.assert_allclose(e3nn(POINTS), ours @ to_e3nn(l).T, atol=1e-6)
    np.testing.assert_allclose(e3nn(POINTS[:, list(E3NN_AXES)]), ours, atol=1e-6)


def test_e3nn_order_of_p_and_d_as_documented():
    """e3nn: p = (x, y, z) and d = (xz, xy, y2, yz, z2-x2)."""
    x, y, z = (POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)).T
    p = np.stack([x, y, z], axis=1) * np.sqrt(3 / (4 * np.pi))
    np.testing.assert_allclose(real_harmonics(1, POINTS) @ to_e3nn(1).T, p, atol=1e-14)
    s3 = np.sqrt(3)
    d = [s3 * x * z, s3 * x * y, (3 * y**2 - 1) / 2, s3 * y * z, s3 / 2 * (z**2 - x**2)]
    expected = np.stack(d, axis=1) * np.sqrt(5 / (4 * np.pi))
    np.testing.assert_allclose(real_harmonics(2, POINTS) @ to_e3nn(2).T, expected, atol=1e-14)


@pytest.mark.parametrize(
    ("l1", "l2", "l3"), [(1, 1, 1), (1, 2, 2), (2, 2, 3), (2, 1, 2), (1, 1, 2)]
)
def test_clebsch_gordan_tensors_turn_with_their_shells(l1, l2, l3):
    tensor = clebsch_gordan(l1, l2, l3)
    d1, d2, d3 = (wigner_d(l, orthogonal(4, proper=True)) for l in (l1, l2, l3))
    turned = np.einsum("ax,by,cz,xyz->abc", d1, d2, d3, tensor)
    np.testing.assert_allclose(turned, tensor, atol=1e-12)
    gram = np.einsum("abm,abn->mn", tensor, tensor)
    np.testing.assert_allclose(gram, np.eye(2 * l3 + 1), atol=1e-12)


def test_clebsch_gordan_of_two_p_shells_is_the_cross_product():
    """Antisymmetric: (y, z, x) of a × b for vectors a and b in the order (y, z, x)."""
    tensor = clebsch_gordan(1, 1, 1)
    a, b = np.array([0.3, -1.0, 2.0]), np.array([1.1, 0.4, -0.7])
    found = np.einsum("i,j,ijm->m", a, b, tensor)
    cross = np.cross(a[[2, 0, 1]], b[[2, 0, 1]])[[1, 2, 0]]
    np.testing.assert_allclose(np.abs(found @ cross), np.linalg.norm(found) * np.linalg.norm(cross))
    np.testing.assert_allclose(tensor, -tensor.transpose(1, 0, 2), atol=1e-14)
    assert not clebsch_gordan(1, 1, 3).any()


@pytest.mark.parametrize("degrees", [(1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1), (2, 2, 3)])
def test_sign_of_couplings_of_unnatural_parity_is_fixed(degrees):
    """Weights trained on one machine are used on others: ties must not decide."""
    tensor = clebsch_gordan(*degrees).ravel()
    nonzero = np.abs(tensor) > 1e-10
    assert np.abs(tensor[nonzero]).min() > 1e-3
    assert tensor[nonzero][0] > 0
