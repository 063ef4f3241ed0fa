"""The network's part of H, piece by piece, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vcmbench.blocks import BlockPattern, Slab
from vcmbench.models.neural.graph import structure_graph
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.structure import FloatArray, IntArray

CHUNK: Final = 4096
"""Messages and blocks worked on at once."""


class Piece(NamedTuple):
    """Predicted blocks of one species pair.

    Attributes
    ----------
    slab : Slab
        The species pair.
    blocks : (n,) int
        Their place in the pattern.
    values : (n, n_i, n_j) float
        eV.
    """

    slab: Slab
    blocks: IntArray
    values: Tensor


def network_values(network: BlockNetwork, pattern: BlockPattern) -> FloatArray:
    """(n_entries,) the network's part of all blocks of a pattern, eV, in its order."""
    accelerator = next(network.parameters()).device
    graph = structure_graph(pattern.structure, network.basis, network.message_cutoff_ang)
    features = network.features(graph.to(accelerator), chunk=CHUNK)
    values = np.zeros(pattern.n_entries)
    everything = np.arange(pattern.n_blocks)
    for piece in predicted_blocks(network, features, pattern, everything):
        values[pattern.entry_index(piece.blocks)] = piece.values.cpu().numpy().ravel()
    return values


def predicted_blocks(
    network: BlockNetwork,
    features: Tensor,
    pattern: BlockPattern,
    blocks: IntArray,
    *,
    chunk: int = CHUNK,
    dtype: torch.dtype = torch.float64,
) -> Iterator[Piece]:
    """Predict blocks of a pattern, at most `chunk` at once.

    Parameters
    ----------
    network : BlockNetwork
        What predicts.
    features : (n_sites, …) float
        Its features of the sites of `pattern`.
    pattern : BlockPattern
        Half-stored blocks.
    blocks : (n,) int
        Which of them, ascending.
    chunk : int
        Largest number of blocks of a piece. With gradients, go back through each piece before the
        next one is asked for, and memory does not grow with their number.
    dtype : torch.dtype
        Precision of the blocks.

    Yields
    ------
    Piece
        All of `blocks`, each once.
    """
    device = features.device
    for slab in pattern.slabs:
        start, stop = np.searchsorted(blocks, [slab.blocks.start, slab.blocks.stop])
        mine = blocks[start:stop]
        onsite = pattern.is_onsite[mine]
        if onsite.any():
            sites = torch.from_numpy(pattern.pair[mine[onsite], 0].astype(np.int64)).to(device)
            yield Piece(
                slab,
                mine[onsite],
                network.site_blocks(slab.species_i, features[sites], dtype),
            )
        bonds = mine[~onsite]
        for begin in range(0, len(bonds), chunk):
            part = bonds[begin : begin + chunk]
            i, j = torch.from_numpy(pattern.pair[part].T.astype(np.int64)).to(device)
            vector = torch.from_numpy(pattern.vector[part]).to(device)
            pair = (slab.species_i, slab.species_j)
            ends = features.index_select(0, i), features.index_select(0, j)
            values = network.bond_blocks(pair, *ends, vector, dtype)
            yield Piece(slab, part, values)
