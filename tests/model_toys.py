"""Small structures and operators that the tests of the models share."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.models.slater_koster import Settings
from vcmbench.structure import FloatArray, Structure

O, GHOST, HF = Species(8, False), Species(8, True), Species(72, False)
BASIS = OrbitalBasis("toy", {O: (0, 1), GHOST: (0, 1), HF: (0, 0, 1, 2)})
CUTOFF = 6.0
SMALL = Settings(
    cutoff_ang=CUTOFF,
    shortest_ang=1.0,
    n_two_centre=8,
    response_cutoff_ang=5.0,
    n_response=2,
    neighbour_cutoff_ang=4.0,
    n_neighbour=1,
)
"""Settings of a model small enough for tests."""


def make_structure(seed: int = 0, n_sites: int = 24) -> Structure:
    """Oxygen, ghosts and hafnium, apart from one another, in a skewed cell short along z."""
    rng = np.random.default_rng(seed)
    cell = np.array([[11.0, 0, 0], [1.0, 9.0, 0], [0, 0.5, 5.0]])
    shifts = np.stack(np.meshgrid(*3 * [[-1, 0, 1]]), -1).reshape(-1, 3) @ cell
    positions: list[FloatArray] = []
    while len(positions) < n_sites:
        trial = rng.random(3) @ cell
        apart = [np.linalg.norm(p - trial + shifts, axis=1).min() > 1.3 for p in positions]
        if all(apart):
            positions.append(trial)
    kind = np.arange(n_sites) % 6
    numbers = np.where(kind < 3, 8, 72)
    moves = rng.integers(-1, 2, (n_sites, 3)) @ cell
    return Structure.create(numbers, np.array(positions) + moves, cell, is_ghost=kind == 0)


def noise(structure: Structure, seed: int = 1) -> BlockMatrix:
    """Random Hermitian operator: a fit to it has generic coefficients throughout."""
    pattern = BlockPattern.from_structure(structure, BASIS, CUTOFF)
    values = np.random.default_rng(seed).normal(size=pattern.n_entries)
    values *= np.repeat(np.exp(-pattern.distance / 2), np.diff(pattern.offset))
    return BlockMatrix(pattern, values).symmetrise()[0]


def orthogonal(seed: int, *, proper: bool) -> FloatArray:
    """Random O(3) element of the given determinant."""
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    return rotation if proper else -rotation
