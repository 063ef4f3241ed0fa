"""The ladder of sizes: a released device repeated across the transport axis.

A supercell in y and z of a device is as real as the device: the same stack, the same oxide, the
same contacts, a larger cross-section. Its Hamiltonian is known exactly, block by block that of the
device, so what a model delivers at any size can be checked without another DFT run. It is made of
the release's data alone, bit for bit the same everywhere, in milliseconds at any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vcmbench.blocks import BlockMatrix, BlockPattern, canonical
from vcmbench.errors import bad_input
from vcmbench.structure import Structure, transport_period

SIZES: Final = (300, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
"""About how many sites the structures of the ladder have."""

ELONGATION: Final = 0.05
"""How much a cross-section k times as long as wide may miss its size less than a square one:
this times ln k, of the logarithm of the number of sites."""

SAMPLE_BLOCKS: Final = 20_000
"""Blocks of a supercell that are compared with the device's."""


@dataclass(frozen=True)
class Copies:
    """Copies of a device along its second and third lattice vector."""

    y: int
    z: int

    @property
    def number(self) -> int:
        """Copies in all."""
        return self.y * self.z


def choose_copies(n_sites: int, target: int) -> Copies:
    """Choose copies of a device of `n_sites` that come near `target` sites, compact across x."""

    def miss(copies: Copies) -> float:
        size = abs(math.log(copies.number * n_sites / target))
        return size + ELONGATION * math.log(copies.y / copies.z)

    most = math.ceil(2 * target / n_sites) + 1
    longest = math.isqrt(16 * most) + 1
    candidates = (Copies(y, z) for y in range(1, min(most, longest) + 1) for z in range(1, y + 1))
    return min(candidates, key=miss)


def rungs(n_sites: int, targets: Iterable[int]) -> list[Copies]:
    """Choose copies for each size asked for, ascending, each once."""
    chosen = {choose_copies(n_sites, target) for target in targets}
    return sorted(chosen, key=lambda copies: (copies.number, copies.y))


def supercell(structure: Structure, copies: Copies, source: str) -> Structure:
    """Repeat a device in y and z.

    Parameters
    ----------
    structure : Structure
        A device, periodic in y and z.
    copies : Copies
        How often.
    source : str
        Its name, for errors.

    Returns
    -------
    Structure
        Copy after copy, the sites of each in the order of `structure`.

    Raises
    ------
    VcmbenchError
        If the structure is not periodic in all directions, or the lattice vectors are not along x
        and across it.
    """
    transport_period(structure, source)
    if not structure.pbc.all():
        raise bad_input(source, "pbc", found=structure.pbc.tolist(), expected="periodic throughout")
    offsets = _offsets(copies) @ structure.cell
    positions = structure.positions[None] + offsets[:, None]
    repeats = (1, copies.y, copies.z)
    return Structure(
        numbers=np.tile(structure.numbers, copies.number),
        positions=positions.reshape(-1, 3),
        cell=structure.cell * np.array(repeats)[:, None],
        pbc=structure.pbc,
        is_ghost=np.tile(structure.is_ghost, copies.number),
        region=np.tile(structure.region, copies.number),
    )


def copies_residual(
    unit: BlockMatrix,
    copies: Copies,
    delivered: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]],
    *,
    seed: int = 0,
) -> float:
    """How far what is delivered for a supercell differs from what is delivered for the device.

    Parameters
    ----------
    unit : BlockMatrix
        Delivered for the device, half stored.
    copies : Copies
        Of the supercell.
    delivered : (pair, shift, values)
        Delivered for the supercell, half stored.
    seed : int
        Chooses the blocks that are compared: `SAMPLE_BLOCKS` of them, all where there are fewer.

    Returns
    -------
    float
        Largest difference of an entry relative to the largest entry; infinite if blocks are
        missing or of other sites.
    """
    pair, shift, values = delivered
    pattern = unit.pattern
    if len(pair) != pattern.n_blocks * copies.number:
        return math.inf
    rng = np.random.default_rng(seed)
    n_sample = min(SAMPLE_BLOCKS, len(pair))
    chosen = np.sort(rng.choice(len(pair), n_sample, replace=False))
    orbitals = np.tile(pattern.site_orbitals, copies.number)
    sizes = orbitals[pair[:, 0]] * orbitals[pair[:, 1]]
    stops = np.cumsum(sizes)
    if stops[-1] != len(values):
        return math.inf
    n_unit = pattern.structure.n_sites
    unit_pair = pair[chosen] % n_unit
    offset = _offsets(copies)
    copy = offset[pair[chosen] // n_unit]
    unit_shift = shift[chosen] * np.array([1, copies.y, copies.z]) + copy[:, 1] - copy[:, 0]
    stored_pair, stored_shift, turned = canonical(pattern.structure, unit_pair, unit_shift)
    largest = 0.0
    scale = float(np.abs(unit.values).max(initial=np.finfo(np.float64).tiny))
    located = _locate(pattern, stored_pair, stored_shift)
    if located is None:
        return math.inf
    for block, place, is_turned in zip(chosen, located, turned, strict=True):
        found = values[stops[block] - sizes[block] : stops[block]]
        expected = unit.values[pattern.offset[place] : pattern.offset[place + 1]]
        if is_turned:
            n_i, n_j = pattern.site_orbitals[pattern.pair[place]]
            expected = expected.reshape(n_i, n_j).T.ravel()
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest / scale


def _offsets(copies: Copies) -> NDArray[np.int64]:
    """Return the (copies, 3) lattice vector by which each copy is moved."""
    y, z = np.meshgrid(np.arange(copies.y), np.arange(copies.z), indexing="ij")
    return np.stack([np.zeros_like(y), y, z], axis=-1).reshape(-1, 3)


def _locate(
    pattern: BlockPattern, pair: NDArray[np.integer], shift: NDArray[np.integer]
) -> NDArray[np.int64] | None:
    """Place of blocks in a pattern, None if one of them is not there."""
    blocks = np.unique(np.concatenate([pair, shift], axis=1), axis=0)
    wanted = BlockPattern.from_unsorted(
        pattern.structure, pattern.basis, blocks[:, :2], blocks[:, 2:]
    )
    at, found = pattern.locate(wanted)
    if not found.all():
        return None
    row = {
        (*p, *s): place
        for p, s, place in zip(
            wanted.pair.tolist(), wanted.shift.tolist(), at.tolist(), strict=True
        )
    }
    keys = zip(pair.tolist(), shift.tolist(), strict=True)
    return np.array([row[*p, *s] for p, s in keys], dtype=np.int64)
