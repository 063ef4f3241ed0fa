"""Real spherical harmonics in CP2K's order and phases, and what O(3) does to them.

Order m = -l ... +l without the Condon–Shortley phase, so that p = (y, z, x) and
d = (xy, yz, z2, xz, x2-y2); normalised to one over the unit sphere. Shells have natural
parity: inversion multiplies a shell by (-1)^l.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import factorial, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike

from vcmbench.blocks import BlockMatrix
from vcmbench.structure import FloatArray

E3NN_AXES = (1, 2, 0)
"""``e3nn(vectors[:, E3NN_AXES])`` is our harmonic, entry by entry: e3nn's polar axis is y."""


def real_harmonics(l: int, vectors: ArrayLike) -> FloatArray:
    """Real spherical harmonics of the directions of `vectors`.

    Parameters
    ----------
    l : int
        Angular momentum.
    vectors : (..., 3) float
        Directions; their length does not matter but must not vanish unless l = 0.

    Returns
    -------
    (..., 2l + 1) float
        Values in the order m = -l ... +l.
    """
    points = np.asarray(vectors, dtype=np.float64)
    if l == 0:
        return np.full((*points.shape[:-1], 1), sqrt(1 / (4 * pi)))
    x, y, z = np.moveaxis(points / np.linalg.norm(points, axis=-1, keepdims=True), -1, 0)
    result = np.empty((*points.shape[:-1], 2 * l + 1))
    # (x + iy)^m is sin^m(theta) exp(i m phi): no angle is computed, so the poles are ordinary.
    azimuthal = np.ones_like(x, dtype=complex)
    for m in range(l + 1):
        polar = _polar_part(l, m, z)
        if m == 0:
            result[..., l] = polar
        else:
            azimuthal = azimuthal * (x + 1j * y)
            result[..., l + m] = sqrt(2) * polar * azimuthal.real
            result[..., l - m] = sqrt(2) * polar * azimuthal.imag
    return result


def _polar_part(l: int, m: int, z: FloatArray) -> FloatArray:
    """Normalised P_l^m(z) / sin^m, without (-1)^m, by upward recursion in the degree."""
    previous, current = np.zeros_like(z), np.full_like(z, factorial(2 * m) / 2**m / factorial(m))
    for degree in range(m + 1, l + 1):
        following = ((2 * degree - 1) * z * current - (degree + m - 1) * previous) / (degree - m)
        previous, current = current, following
    norm = sqrt((2 * l + 1) / (4 * pi) * factorial(l - m) / factorial(l + m))
    return norm * current


@cache
def _sample_points(l: int) -> tuple[FloatArray, FloatArray]:
    """Directions that determine a harmonic of degree l, and the inverse of its values there."""
    n_points = 3 * l  # 2l + 1 are needed; these keep the condition number below 8
    index = np.arange(n_points) + 0.5
    z = 1 - 2 * index / n_points
    azimuth = index * pi * (1 + sqrt(5))
    radius = np.sqrt(1 - z**2)
    points = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)
    inverse = np.linalg.pinv(real_harmonics(l, points)).astype(np.float64)
    return points, inverse


def wigner_d(l: int, rotation: ArrayLike) -> FloatArray:
    """Matrices by which O(3) elements act on a shell: Y(R v) = D Y(v).

    Parameters
    ----------
    l : int
        Angular momentum.
    rotation : (..., 3, 3) float
        Orthogonal matrices, proper or improper.

    Returns
    -------
    (..., 2l + 1, 2l + 1) float
        Orthogonal matrices D(R), with D(R R') = D(R) D(R').
    """
    matrices = np.asarray(rotation, dtype=np.float64)
    if l == 0:
        return np.ones((*matrices.shape[:-2], 1, 1))
    if l == 1:  # (y, z, x)
        return matrices[..., [1, 2, 0], :][..., [1, 2, 0]]
    points, inverse = _sample_points(l)
    values = real_harmonics(l, points @ np.swapaxes(matrices, -1, -2))
    return np.swapaxes(inverse @ values, -1, -2)


def site_wigner_d(shells: Sequence[int], rotation: ArrayLike) -> FloatArray:
    """Block-diagonal D of all orbitals of a site.

    Parameters
    ----------
    shells : sequence of int
        Angular momentum of each shell.
    rotation : (..., 3, 3) float
        Orthogonal matrices.

    Returns
    -------
    (..., n_orbitals, n_orbitals) float
    """
    return _block_diagonal(shells, {l: wigner_d(l, rotation) for l in set(shells)})


def _block_diagonal(shells: Sequence[int], by_l: Mapping[int, FloatArray]) -> FloatArray:
    """Put the matrix of each shell's l on the diagonal."""
    n_orbitals = sum(2 * l + 1 for l in shells)
    result = np.zeros((*by_l[shells[0]].shape[:-2], n_orbitals, n_orbitals))
    start = 0
    for l in shells:
        stop = start + 2 * l + 1
        result[..., start:stop, start:stop] = by_l[l]
        start = stop
    return result


def bond_frames(vectors: FloatArray) -> FloatArray:
    """Rotations that carry the z axis onto each bond.

    The azimuth about the bond is arbitrary, and only quantities invariant under it (the
    two-centre invariants) may depend on the result. Every direction is well conditioned.

    Parameters
    ----------
    vectors : (n, 3) float
        Bond vectors, not zero.

    Returns
    -------
    (n, 3, 3) float
        Proper rotations Q; the third column is the bond's direction.

    References
    ----------
    Duff et al., J. Comput. Graph. Tech. 6, 1 (2017).
    """
    x, y, z = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    sign = np.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    columns = [
        np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1),
        np.stack([b, sign + y * y * a, -y], axis=1),
        np.stack([x, y, z], axis=1),
    ]
    return np.stack(columns, axis=2)


def rotate_blocks(
    blocks: FloatArray, shells_i: Sequence[int], shells_j: Sequence[int], rotation: ArrayLike
) -> FloatArray:
    """Blocks of the rotated system, D_i(R) H D_j(R)ᵀ.

    Parameters
    ----------
    blocks : (n, n_i, n_j) float
        Blocks between sites with `shells_i` and sites with `shells_j`.
    shells_i, shells_j : sequence of int
        Angular momentum of each shell.
    rotation : (3, 3) or (n, 3, 3) float
        One orthogonal matrix for all blocks, or one for each.

    Returns
    -------
    (n, n_i, n_j) float
    """
    by_l = {l: wigner_d(l, rotation) for l in {*shells_i, *shells_j}}
    right = np.swapaxes(_block_diagonal(shells_j, by_l), -1, -2)
    return _block_diagonal(shells_i, by_l) @ blocks @ right


def rotate_matrix(matrix: BlockMatrix, rotation: FloatArray) -> BlockMatrix:
    """Operator that `matrix` becomes when its structure is transformed by ``x -> R x``.

    Parameters
    ----------
    matrix : BlockMatrix
        Any operator on the orbitals.
    rotation : (3, 3) float
        Orthogonal matrix, proper or improper.

    Returns
    -------
    BlockMatrix
        On the same pattern: sites, shifts and order do not depend on the orientation.
    """
    values = np.empty_like(matrix.values)
    for slab in matrix.pattern.slabs:
        shells_i, shells_j = (
            matrix.pattern.basis.shells_of(s) for s in (slab.species_i, slab.species_j)
        )
        values[slab.entries] = rotate_blocks(
            matrix.slab(slab), shells_i, shells_j, rotation
        ).ravel()
    return matrix.with_values(values)


@cache
def coupling(l1: int, l2: int, l3: int) -> FloatArray:
    """Equivariant tensor that couples three shells of natural parity.

    Gaunt's integral of three harmonics, computed by a quadrature that is exact for it, scaled so
    that the components M of l3 are orthonormal matrices, sum_ab C_abM C_abM' = δ_MM'; zero unless
    l1 + l2 + l3 is even and the triangle rule holds.

    Returns
    -------
    (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) float
    """
    degree = l1 + l2 + l3
    z, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    azimuth = 2 * pi * np.arange(degree + 1) / (degree + 1)
    radius = np.sqrt(1 - z**2)[:, None]
    points = np.stack(
        [radius * np.cos(azimuth), radius * np.sin(azimuth), np.tile(z[:, None], degree + 1)],
        axis=-1,
    ).reshape(-1, 3)
    harmonics = [real_harmonics(l, points) for l in (l1, l2, l3)]
    tensor = np.einsum("p,pa,pb,pc->abc", np.repeat(weights, degree + 1), *harmonics)
    norm = np.linalg.norm(tensor)
    return tensor * (sqrt(2 * l3 + 1) / norm) if norm > 1e-10 else np.zeros_like(tensor)


@cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> FloatArray:
    """Tensor that couples two shells to any degree, of natural parity or not.

    For even l1 + l2 + l3 that of `coupling`. For odd sums, as the p shells' antisymmetric part
    (l3 = 1), the product has the other parity; the tensor is what rotations leave alone in the
    product of the three shells, fixed up to a sign.

    Returns
    -------
    (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) float
        Orthonormal components M of l3: sum_ab C_abM C_abM' = δ_MM'; zero without the triangle rule.
    """
    sizes = (2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)
    if (l1 + l2 + l3) % 2 == 0 or not abs(l1 - l2) <= l3 <= l1 + l2:
        return coupling(l1, l2, l3)
    # Two turns about different axes generate all rotations.
    c, s = np.cos(1.0), np.sin(1.0)
    about_x, about_z = [[1, 0, 0], [0, c, -s], [0, s, c]], [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    change = []
    for rotation in (about_x, about_z):
        d1, d2, d3 = (wigner_d(l, rotation) for l in (l1, l2, l3))
        change.append(np.kron(np.kron(d1, d2), d3) - np.eye(int(np.prod(sizes))))
    invariant = np.linalg.svd(np.concatenate(change))[2][-1]
    invariant *= np.sign(invariant[np.abs(invariant).argmax()]) * sqrt(2 * l3 + 1)
    return np.asarray(invariant.reshape(sizes))


def to_e3nn(l: int) -> FloatArray:
    """Matrix M with Y_e3nn(v) = M Y(v), both orthonormal and of the same Cartesian vector.

    e3nn's convention is ours with the axes (y, z, x) in the place of (x, y, z), so M is the
    Wigner matrix of that permutation: a permutation for p, while z2 and x2-y2 mix in d. To
    leave every coefficient where it is, turn the vectors instead (`E3NN_AXES`).
    """
    return wigner_d(l, np.eye(3)[list(E3NN_AXES)].T)
