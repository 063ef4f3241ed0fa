"""Predicted blocks, piece by piece, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from vcmbench.blocks import Slab
from vcmbench.models.neural.clock import StageClock
from vcmbench.models.neural.graph import table_graph
from vcmbench.models.neural.network import BlockMaker, BondList, Group
from vcmbench.models.neural.table import BlockTable
from vcmbench.structure import Structure

CHUNK: Final = {"cpu": 4096, "cuda": 65536}
"""Messages and blocks worked on at once, by what computes: on the CPU as many as its caches hold,
on an accelerator as many as leave memory for the backward pass."""

BLOCK_BYTES: Final = 2**16
"""More than the memory that one block takes while it is predicted (21 to 42 KiB, the baselines)."""

LARGEST_CHUNK: Final = 2**18
"""Beyond, an accelerator gains nothing."""


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
    directions : int
        How many blocks each stands for: 1 on site, 2 for the bonds, whose reverse is not stored.
    pieces : list of Piece
        The blocks by species pair.
    """

    directions: int
    pieces: list[Piece]


def largest_chunk(accelerator: torch.device) -> int:
    """Messages and blocks that a prediction may work on at once, by the memory that is free."""
    if accelerator.type == "cpu":
        return CHUNK["cpu"]
    free_bytes, _ = torch.cuda.mem_get_info(accelerator)
    free_bytes += torch.cuda.memory_reserved(accelerator) - torch.cuda.memory_allocated(accelerator)
    return min(max(free_bytes // (2 * BLOCK_BYTES), CHUNK["cpu"]), LARGEST_CHUNK)


def predicted_values(
    makers: Sequence[BlockMaker],
    table: BlockTable,
    neighbours: BlockTable,
    structure: Structure,
    clock: StageClock,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Sum of what several makers predict for blocks.

    Parameters
    ----------
    makers : sequence of BlockMaker
        On the accelerator of `clock`.
    table : BlockTable
        The blocks.
    neighbours : BlockTable
        Holds all pairs of sites within the range of the makers' messages.
    structure : Structure
        All sites that the blocks depend on.
    clock : StageClock
        Told of the stages.
    dtype : torch.dtype
        Precision of the blocks.

    Returns
    -------
    (n_entries,) float
        eV, on the accelerator.
    """
    accelerator = clock.accelerator
    values = torch.zeros(table.n_entries, dtype=dtype, device=accelerator)
    for maker in makers:
        graph = table_graph(neighbours, structure, maker.basis, maker.message_cutoff_ang)
        clock.lap("neighbour list")
        features = maker.features(graph, chunk=largest_chunk(accelerator))
        clock.lap("features")
        near = torch.nonzero(table.distance < maker.block_cutoff_ang)[:, 0]
        chunk = largest_chunk(accelerator)
        for step in predicted_blocks(maker, features, table, near, chunk=chunk, dtype=dtype):
            for piece in step.pieces:
                piece.among(values).index_add_(0, piece.rows, piece.values)
        clock.lap("blocks")
    return values


def predicted_blocks(
    maker: BlockMaker,
    features: Tensor,
    table: BlockTable,
    blocks: Tensor,
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
    blocks : (n,) int64
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
    sites, bonds = blocks[onsite], blocks[~onsite]
    if len(sites):
        yield Step(1, list(_site_pieces(maker, features, table, sites, dtype)))
    for part in bonds.split(chunk or CHUNK[features.device.type]):
        if len(part):
            yield Step(2, _bond_pieces(maker, features, table, part, dtype))


def _site_pieces(
    maker: BlockMaker, features: Tensor, table: BlockTable, blocks: Tensor, dtype: torch.dtype
) -> Iterator[Piece]:
    for slab, place in _by_slab(table, blocks):
        sites = table.pair[blocks[place], 0]
        values = maker.site_blocks(slab.species_i, features[sites], dtype)
        yield Piece(slab, blocks[place] - slab.blocks.start, values)


def _bond_pieces(
    maker: BlockMaker, features: Tensor, table: BlockTable, blocks: Tensor, dtype: torch.dtype
) -> list[Piece]:
    held = list(_by_slab(table, blocks))
    groups = [Group((slab.species_i, slab.species_j), place) for slab, place in held]
    first, second = table.pair.index_select(0, blocks).unbind(1)
    bonds = BondList(first, second, table.vector.index_select(0, blocks), groups)
    values = maker.bond_blocks(features, bonds, dtype)
    return [
        Piece(slab, blocks[place] - slab.blocks.start, part)
        for (slab, place), part in zip(held, values, strict=True)
    ]


def _by_slab(table: BlockTable, blocks: Tensor) -> Iterator[tuple[Slab, slice]]:
    """Slabs that hold some of the blocks (ascending), and which."""
    starts = torch.tensor([slab.blocks.start for slab in table.slabs], device=blocks.device)
    bounds = [*torch.searchsorted(blocks, starts).tolist(), len(blocks)]
    for slab, start, stop in zip(table.slabs, bounds[:-1], bounds[1:], strict=True):
        if stop > start:
            yield slab, slice(start, stop)
