"""A small network, its model directory's parts, and what to train it on."""

from __future__ import annotations

import numpy as np
import torch
from model_toys import BASIS

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.models.neural.assembly import predicted_blocks
from vcmbench.models.neural.graph import structure_graph
from vcmbench.models.neural.so2_local import So2Local, So2LocalSettings
from vcmbench.structure import Structure

SMALL_NETWORK = So2LocalSettings(
    l_max=3,
    channels=3,
    layers=1,
    message_cutoff_ang=3.5,
    block_cutoff_ang=5.0,
    n_splines=4,
    hidden=4,
)


def make_network(settings: So2LocalSettings = SMALL_NETWORK, seed: int = 0) -> So2Local:
    """Random weights in float64, those of the outputs too."""
    torch.manual_seed(seed)
    network = So2Local(BASIS, settings).double()
    for name, parameter in network.named_parameters():
        if ".outputs." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def network_part(network: So2Local, structure: Structure, *, chunk: int = 4096) -> BlockMatrix:
    """All that the network predicts, without Slater–Koster."""
    pattern = BlockPattern.from_structure(structure, BASIS, network.block_cutoff_ang)
    values = np.zeros(pattern.n_entries)
    with torch.no_grad():
        graph = structure_graph(structure, BASIS, network.message_cutoff_ang)
        features = network.features(graph, chunk=chunk)
        for piece in predicted_blocks(
            network, features, pattern, np.arange(pattern.n_blocks), chunk=chunk
        ):
            values[pattern.entry_index(piece.blocks)] = piece.values.numpy().ravel()
    return BlockMatrix(pattern, values)
