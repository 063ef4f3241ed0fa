"""Which blocks are predicted, listed where the networks compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from torch import Tensor
from vesin import NeighborList

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import MAX_SHIFT, BlockPattern, Slab
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Structure


@dataclass(frozen=True)
class BlockTable:
    """Half-stored blocks in canonical order, as in `vcmbench.blocks.BlockPattern`.

    Parameters
    ----------
    pair : (n_blocks, 2) int64
        Sites of each block.
    shift : (n_blocks, 3) int32
        Lattice shift of the second.
    vector : (n_blocks, 3) float64
        From the first to the second, Å.
    slabs : list of Slab
        Blocks by species pair.
    """

    pair: Tensor
    shift: Tensor
    vector: Tensor
    slabs: list[Slab]

    @classmethod
    def of(cls, pattern: BlockPattern, accelerator: torch.device) -> Self:
        """Blocks of a pattern."""
        return cls(
            torch.from_numpy(pattern.pair.astype(np.int64)).to(accelerator),
            torch.from_numpy(pattern.shift.copy()).to(accelerator),
            torch.from_numpy(pattern.vector.copy()).to(accelerator),
            pattern.slabs,
        )

    @classmethod
    def within(
        cls,
        structure: Structure,
        basis: OrbitalBasis,
        cutoff_ang: float,
        accelerator: torch.device,
    ) -> Self:
        """Find all pairs of sites closer than a cutoff (Å), on the accelerator.

        The blocks are those of `BlockPattern.from_structure`, in the same order.

        Raises
        ------
        VcmbenchError
            If a lattice shift is larger than a pattern may have.
        """
        positions, cell, species = (
            torch.from_numpy(array.copy()).to(accelerator)
            for array in (structure.positions, structure.cell, structure.species_index)
        )
        finder = NeighborList(cutoff=cutoff_ang, full_list=False)
        periodic = torch.from_numpy(structure.pbc.copy()).to(accelerator)
        found, shift, distance = finder.compute(positions, cell, periodic, "PSd")
        near = distance < cutoff_ang
        sites = torch.arange(structure.n_sites, device=accelerator)
        pair = torch.cat([sites[:, None].expand(-1, 2), found.to(torch.int64)[near]])
        shift = torch.cat([shift.new_zeros(len(sites), 3), shift[near]])
        if len(shift) and (largest := int(shift.abs().max())) > MAX_SHIFT:
            raise VcmbenchError(
                f"blocks: shift: found |R| = {largest}, expected at most {MAX_SHIFT}"
            )
        pair, shift, kind = _sorted(pair, shift, species, len(structure.species_list))
        first, second = pair.unbind(1)
        vector = positions[second] + shift.to(cell.dtype) @ cell - positions[first]
        return cls(pair, shift, vector, _slabs(structure, basis, kind))

    @property
    def accelerator(self) -> torch.device:
        """Where it lies."""
        return self.pair.device

    @property
    def n_entries(self) -> int:
        """Entries of all blocks."""
        return self.slabs[-1].entries.stop if self.slabs else 0

    @cached_property
    def distance(self) -> Tensor:
        """(n_blocks,) length of `vector`, Å."""
        return self.vector.norm(dim=1)

    @cached_property
    def is_onsite(self) -> Tensor:
        """(n_blocks,) whether the block couples a site with itself at no shift."""
        return (self.pair[:, 0] == self.pair[:, 1]) & ~self.shift.any(1)


def _sorted(
    pair: Tensor, shift: Tensor, species: Tensor, n_species: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical direction and order of blocks, and the species pair of each."""
    n_sites = len(species)
    rank = species * n_sites + torch.arange(n_sites, device=species.device)
    first, second = rank[pair].unbind(1)
    # Lexicographic order of shifts is that of these numbers, whose zero is that of the shift.
    base = 2 * MAX_SHIFT + 1
    x, y, z = shift.to(torch.int64).unbind(1)
    along = (x * base + y) * base + z
    turned = (first > second) | ((first == second) & (along < 0))
    pair = torch.where(turned[:, None], pair.flip(1), pair)
    shift = torch.where(turned[:, None], -shift, shift)
    along = torch.where(turned, -along, along)
    ends = species[pair]
    kind = ends[:, 0] * n_species + ends[:, 1]
    key = ((kind * n_sites + pair[:, 0]) * n_sites + pair[:, 1]) * base**3 + along
    order = torch.argsort(key)
    return pair[order], shift[order], kind[order]


def _slabs(structure: Structure, basis: OrbitalBasis, kind: Tensor) -> list[Slab]:
    """Blocks by species pair, from the species pair of each block, in order."""
    species = structure.species_list
    counts: Sequence[int] = torch.bincount(kind, minlength=len(species) ** 2).tolist()
    sizes = [basis.n_orbitals(s) for s in species]
    pairs = [(a, b) for a in range(len(species)) for b in range(len(species))]
    blocks = [0, *accumulate(counts)]
    held = [n * sizes[a] * sizes[b] for n, (a, b) in zip(counts, pairs, strict=True)]
    entries = [0, *accumulate(held)]
    return [
        Slab(
            species[a],
            species[b],
            slice(blocks[k], blocks[k + 1]),
            sizes[a],
            sizes[b],
            slice(entries[k], entries[k + 1]),
        )
        for k, (a, b) in enumerate(pairs)
        if counts[k]
    ]
