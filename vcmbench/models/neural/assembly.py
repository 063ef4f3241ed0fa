"""Predicted blocks, piece by piece, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcmbench.blocks import BlockPattern, Slab
from vcmbench.models.neural.clock import StageClock
from vcmbench.models.neural.graph import pattern_graph
from vcmbench.models.neural.network import BlockMaker, BondList, Group
from vcmbench.structure import FloatArray, IntArray

CHUNK: Final = {"cpu": 4096, "cuda": 65536}
"""Messages and blocks worked on at once, by what computes."""


@dataclass(frozen=True)
class BlockTable:
    """What the networks need of a pattern, where they compute.

    Parameters
    ----------
    pair : (n_blocks, 2) int
        Sites of each block.
    vector : (n_blocks, 3) float64
        From the first to the second, Å.
    slabs : list of Slab
        Blocks by species pair.
    is_onsite : (n_blocks,) bool
        In host memory, to sort work.
    """

    pair: Tensor
    vector: Tensor
    slabs: list[Slab]
    is_onsite: NDArray[np.bool_]

    @classmethod
    def of(cls, pattern: BlockPattern, accelerator: torch.device) -> BlockTable:
        """Table of a pattern."""
        return cls(
            torch.from_numpy(pattern.pair.astype(np.int64)).to(accelerator),
            torch.from_numpy(pattern.vector.copy()).to(accelerator),
            pattern.slabs,
            pattern.is_onsite,
        )


class Piece(NamedTuple):
    """Predicted blocks of one species pair.

    Attributes
    ----------
    slab : Slab
        The species pair.
    rows : (n,) int
        Their place among its blocks.
    values : (n, n_i, n_j) float
        eV.
    """

    slab: Slab
    rows: Tensor
    values: Tensor

    def among(self, entries: Tensor) -> Tensor:
        """(n_blocks, n_i, n_j) view of all blocks of the slab in the entries of the pattern."""
        slab = self.slab
        return entries[slab.entries].view(slab.n_blocks, slab.n_i, slab.n_j)


class Step(NamedTuple):
    """Blocks predicted at once: on site, or bonds.

    Attributes
    ----------
    blocks : (n,) int
        Their place in the pattern, ascending.
    pieces : list of Piece
        The same by species pair.
    """

    blocks: IntArray
    pieces: list[Piece]


def predicted_values(
    makers: Sequence[BlockMaker],
    pattern: BlockPattern,
    clock: StageClock,
    neighbours: BlockPattern | None = None,
) -> FloatArray:
    """Sum of what several makers predict for the blocks of a pattern.

    Parameters
    ----------
    makers : sequence of BlockMaker
        On the accelerator of `clock`.
    pattern : BlockPattern
        Half-stored blocks; its structure holds all sites that they depend on.
    clock : StageClock
        Told of the stages.
    neighbours : BlockPattern, optional
        Holds all pairs of its sites within the range of the makers' messages; found if None.

    Returns
    -------
    (n_entries,) float64
        eV, in host memory.
    """
    accelerator = clock.accelerator
    values = torch.zeros(pattern.n_entries, dtype=torch.float64, device=accelerator)
    table = BlockTable.of(pattern, accelerator)
    clock.lap("transfer")
    if neighbours is None:
        reach = max(maker.message_cutoff_ang for maker in makers)
        neighbours = BlockPattern.from_structure(pattern.structure, pattern.basis, reach)
    for maker in makers:
        graph = pattern_graph(neighbours, maker.basis, maker.message_cutoff_ang)
        clock.lap("neighbour list")
        features = maker.features(graph.to(accelerator), chunk=CHUNK[accelerator.type])
        clock.lap("features")
        near = np.flatnonzero(pattern.distance < maker.block_cutoff_ang)
        for step in predicted_blocks(maker, features, table, near):
            for piece in step.pieces:
                piece.among(values).index_add_(0, piece.rows, piece.values)
        clock.lap("blocks")
    found = values.cpu().numpy()
    clock.lap("transfer")
    return found


def predicted_blocks(
    maker: BlockMaker,
    features: Tensor,
    table: BlockTable,
    blocks: IntArray,
    *,
    chunk: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Iterator[Step]:
    """Predict blocks of a pattern, at most `chunk` bonds at once.

    Parameters
    ----------
    maker : BlockMaker
        What predicts.
    features : (n_sites, …) float
        Its features of the sites of the pattern.
    table : BlockTable
        Half-stored blocks.
    blocks : (n,) int
        Which of them, ascending.
    chunk : int, optional
        Largest number of bonds of a step; `CHUNK` if None. With gradients, go back through each
        step before the next one is asked for, and memory does not grow with their number.
    dtype : torch.dtype
        Precision of the blocks.

    Yields
    ------
    Step
        First what is on site, then bonds; together all of `blocks`, each once.
    """
    onsite = table.is_onsite[blocks]
    if onsite.any():
        sites = blocks[onsite]
        yield Step(sites, list(_site_pieces(maker, features, table, sites, dtype)))
    bonds = blocks[~onsite]
    chunk = chunk or CHUNK[features.device.type]
    for begin in range(0, len(bonds), chunk):
        part = bonds[begin : begin + chunk]
        yield Step(part, _bond_pieces(maker, features, table, part, dtype))


def _site_pieces(
    maker: BlockMaker, features: Tensor, table: BlockTable, blocks: IntArray, dtype: torch.dtype
) -> Iterator[Piece]:
    chosen = torch.from_numpy(blocks).to(features.device)
    for slab, place in _by_slab(table, blocks):
        sites = table.pair[chosen[place], 0]
        values = maker.site_blocks(slab.species_i, features[sites], dtype)
        yield Piece(slab, chosen[place] - slab.blocks.start, values)


def _bond_pieces(
    maker: BlockMaker, features: Tensor, table: BlockTable, blocks: IntArray, dtype: torch.dtype
) -> list[Piece]:
    chosen = torch.from_numpy(blocks).to(features.device)
    held = list(_by_slab(table, blocks))
    groups = [Group((slab.species_i, slab.species_j), place) for slab, place in held]
    first, second = table.pair.index_select(0, chosen).unbind(1)
    bonds = BondList(first, second, table.vector.index_select(0, chosen), groups)
    values = maker.bond_blocks(features, bonds, dtype)
    return [
        Piece(slab, chosen[place] - slab.blocks.start, part)
        for (slab, place), part in zip(held, values, strict=True)
    ]


def _by_slab(table: BlockTable, blocks: IntArray) -> Iterator[tuple[Slab, slice]]:
    """Slabs that hold some of the blocks (ascending), and which."""
    bounds = np.searchsorted(blocks, [slab.blocks.start for slab in table.slabs] + [np.inf])
    for slab, start, stop in zip(table.slabs, bounds[:-1], bounds[1:], strict=True):
        if stop > start:
            yield slab, slice(int(start), int(stop))
