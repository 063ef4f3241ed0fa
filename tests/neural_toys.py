"""A small network, its model directory's parts, and what to train it on."""

from __future__ import annotations

import torch
from model_toys import BASIS

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.models.neural.assembly import predicted_blocks
from vcmbench.models.neural.graph import structure_graph
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.models.neural.networks import (
    MaceNetwork,
    NetworkKind,
    So2LocalNetwork,
    TensorProductNetwork,
)
from vcmbench.models.neural.settings import MaceSettings, So2LocalSettings, TensorProductSettings
from vcmbench.models.neural.table import BlockTable
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


SMALL_NETWORKS: dict[str, NetworkKind] = {
    "so2-local": So2LocalNetwork(name="so2-local", settings=SMALL_NETWORK),
    "tensor-product": TensorProductNetwork(
        name="tensor-product",
        settings=TensorProductSettings(
            l_max=2,
            channels=3,
            message_cutoff_ang=3.5,
            block_cutoff_ang=5.0,
            n_splines=4,
            radial_hidden=6,
        ),
    ),
    "mace": MaceNetwork(
        name="mace",
        settings=MaceSettings(
            l_max=2,
            l_max_edge=2,
            channels=3,
            message_cutoff_ang=3.5,
            block_cutoff_ang=5.0,
            n_splines=4,
            hidden=4,
        ),
    ),
}


def make_network(
    name: str = "so2-local", seed: int = 0, basis: OrbitalBasis = BASIS
) -> BlockNetwork:
    """Random weights in float64, those of the outputs too."""
    torch.manual_seed(seed)
    network = SMALL_NETWORKS[name].make(basis, torch.float64)
    for parameter_name, parameter in network.named_parameters():
        if ".outputs." in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def network_part(network: BlockNetwork, structure: Structure, *, chunk: int = 4096) -> BlockMatrix:
    """All that the network predicts, without Slater–Koster."""
    pattern = BlockPattern.from_structure(structure, BASIS, network.block_cutoff_ang)
    with torch.no_grad():
        graph = structure_graph(structure, BASIS, network.message_cutoff_ang)
        features = network.features(graph, chunk=chunk)
        values = torch.zeros(pattern.n_entries, dtype=torch.float64)
        table = BlockTable.of(pattern, torch.device("cpu"))
        for step in predicted_blocks(
            network, features, table, torch.arange(pattern.n_blocks), chunk=chunk
        ):
            for piece in step.pieces:
                piece.among(values)[piece.rows] = piece.values
    return BlockMatrix(pattern, values.numpy())
