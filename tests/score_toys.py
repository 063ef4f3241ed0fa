"""Small random operators that the tests of the scores share."""

from __future__ import annotations

import numpy as np

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import Device, Provenance
from vcmbench.structure import Region, Structure

BASIS = OrbitalBasis(
    "toy",
    {
        Species(7, False): (0, 1),
        Species(8, False): (0, 1),
        Species(8, True): (0, 1),
        Species(72, False): (0, 0, 1, 2),
    },
)
SUPPORT = 12.0


def make_structure(*, seed: int = 0, n_sites: int = 16, length: float = 26.0) -> Structure:
    """Sites of four species along x with regions, in a cell shorter than the support in y and z."""
    rng = np.random.default_rng(seed)
    cell = np.array([[length, 0, 0], [0.4, 8.5, 0], [0, 0.3, 9.0]])
    numbers = np.concatenate([[7, 8, 8, 72], rng.choice([7, 8, 72], n_sites - 4)])
    ghost = np.zeros(n_sites, bool)
    ghost[1] = True
    fraction = rng.random((n_sites, 3)) * [1.0, 1.3, 1.3] - [0, 0.1, 0.1]
    region = np.clip((fraction[:, 0] * 6).astype(int), Region.LEFT_CONTACT, Region.RIGHT_CONTACT)
    return Structure.create(numbers, fraction @ cell, cell, is_ghost=ghost, region=region)


def make_pattern(*, seed: int = 0, n_sites: int = 16, cutoff: float = SUPPORT) -> BlockPattern:
    """Half-stored pattern of the toy structure."""
    return BlockPattern.from_structure(make_structure(seed=seed, n_sites=n_sites), BASIS, cutoff)


def random_operator(pattern: BlockPattern, *, seed: int, scale: float = 1.0) -> BlockMatrix:
    """Hermitian operator whose entries decay with distance."""
    noise = np.random.default_rng(seed).normal(size=pattern.n_entries)
    decay = np.repeat(np.exp(-pattern.distance / 3), np.diff(pattern.offset))
    return BlockMatrix(pattern, scale * noise * decay).symmetrise()[0].align(pattern)


def overlap_like(pattern: BlockPattern, *, seed: int = 9) -> BlockMatrix:
    """Well-conditioned S: small couplings and a unit diagonal."""
    small = random_operator(pattern, seed=seed, scale=0.01).values.copy()
    for slab in pattern.slabs:
        onsite = np.flatnonzero(pattern.is_onsite[slab.blocks])
        if len(onsite):
            blocks = small[slab.entries].reshape(slab.n_blocks, slab.n_i, slab.n_j)
            blocks[onsite] = np.eye(slab.n_i)
    return BlockMatrix(pattern, small)


def make_device(pattern: BlockPattern) -> Device:
    """Bulk cell with random H and S."""
    return Device(
        "toy",
        "bulk",
        random_operator(pattern, seed=1),
        overlap_like(pattern),
        Provenance(code="toy"),
    )
