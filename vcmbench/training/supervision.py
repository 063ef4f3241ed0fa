"""What a network learns from: pieces of devices with the blocks they supervise.

The target is what Slater–Koster leaves: H − H_SK of every block within the network's cutoff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.excerpt import excerpt
from vcmbench.models.neural.assembly import BlockTable
from vcmbench.models.neural.graph import structure_graph
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.partition import PartitionSlab
from vcmbench.structure import IntArray


@dataclass(frozen=True)
class Supervised:
    """One piece of a device.

    Parameters
    ----------
    name : str
        Device and range along x, for messages.
    pattern : BlockPattern
        Supervised blocks, on the sites that they depend on.
    table : BlockTable
        The same where the network computes.
    graph : Data
        Those sites and their messages.
    target : (n_entries,) float
        What the network should give, eV.
    """

    name: str
    pattern: BlockPattern
    table: BlockTable
    graph: Data
    target: Tensor

    @property
    def n_blocks(self) -> int:
        """Number of supervised blocks."""
        return self.pattern.n_blocks

    def n_directed(self, blocks: IntArray) -> int:
        """Entries of some blocks, both directions counted, as the score does."""
        sizes = self.pattern.offset[blocks + 1] - self.pattern.offset[blocks]
        return int((sizes * self.pattern.weight[blocks]).sum())


def supervised(
    name: str,
    target: BlockMatrix,
    slabs: Sequence[PartitionSlab],
    network: BlockNetwork,
    accelerator: str,
) -> list[Supervised]:
    """Cut a device into pieces.

    Parameters
    ----------
    name : str
        The device.
    target : BlockMatrix
        H − H_SK within the network's cutoff, eV.
    slabs : sequence of PartitionSlab
        Blocks and sites of each piece.
    network : BlockNetwork
        Says how far messages go.
    accelerator : str
        Where it computes.

    Returns
    -------
    list of Supervised
        Pieces that supervise something.
    """
    pieces = []
    for slab in slabs:
        if not len(slab.blocks):
            continue
        part = excerpt(target.pattern, slab.blocks, slab.sites)
        graph = structure_graph(part.structure, network.basis, network.message_cutoff_ang)
        values = torch.from_numpy(target.values[target.pattern.entry_index(slab.blocks)])
        pieces.append(
            Supervised(
                f"{name}, x = {slab.start_ang:.1f} … {slab.stop_ang:.1f} Å",
                part,
                BlockTable.of(part, torch.device(accelerator)),
                graph.to(accelerator),
                values.to(accelerator),
            )
        )
    return pieces


@dataclass(frozen=True)
class Batch:
    """Some blocks of one piece."""

    piece: Supervised
    blocks: IntArray

    @property
    def n_directed(self) -> int:
        """Entries, both directions counted."""
        return self.piece.n_directed(self.blocks)


def epoch_batches(
    pieces: Sequence[Supervised], blocks_per_step: int, seed: Sequence[int]
) -> list[Batch]:
    """Divide the blocks of all pieces into batches, each block once, at random.

    Parameters
    ----------
    pieces : sequence of Supervised
        What is supervised.
    blocks_per_step : int
        Largest number of blocks of a batch.
    seed : sequence of int
        Fixes the division: the same for every process, another for every epoch.
    """
    generator = np.random.default_rng(seed)
    batches = []
    for piece in pieces:
        order = generator.permutation(piece.n_blocks)
        n_batches = -(-piece.n_blocks // blocks_per_step)
        batches += [Batch(piece, np.sort(part)) for part in np.array_split(order, n_batches)]
    return [batches[index] for index in generator.permutation(len(batches))]


def whole_batches(pieces: Sequence[Supervised]) -> Iterator[Batch]:
    """All blocks of each piece."""
    for piece in pieces:
        yield Batch(piece, np.arange(piece.n_blocks))
