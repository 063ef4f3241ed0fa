"""Graphs of structures: sites, and the neighbours that send them messages."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockPattern
from vcmbench.models.interface import require_known_species
from vcmbench.structure import Structure

SOURCE: Final = "network"


def structure_graph(structure: Structure, basis: OrbitalBasis, message_cutoff_ang: float) -> Data:
    """Sites and their neighbours.

    Parameters
    ----------
    structure : Structure
        Sites; a cell may be shorter than the cutoff, every image then sends its own message.
    basis : OrbitalBasis
        Basis of the model: its species number the sites.
    message_cutoff_ang : float
        Range of the messages, Å.

    Returns
    -------
    torch_geometric.data.Data
        As of `pattern_graph`.

    Raises
    ------
    VcmbenchError
        If the structure has a species that the basis lacks.
    """
    require_known_species(SOURCE, structure, basis)
    pattern = BlockPattern.from_structure(structure, basis, message_cutoff_ang)
    return pattern_graph(pattern, basis, message_cutoff_ang)


def pattern_graph(pattern: BlockPattern, basis: OrbitalBasis, message_cutoff_ang: float) -> Data:
    """Sites and their neighbours, from a pattern that holds all pairs within the cutoff.

    Parameters
    ----------
    pattern : BlockPattern
        Half-stored blocks of a whole structure.
    basis : OrbitalBasis
        Basis of the model: its species number the sites.
    message_cutoff_ang : float
        Range of the messages, Å.

    Returns
    -------
    torch_geometric.data.Data
        ``species`` (n_sites,) index into ``basis.species``; ``edge_index`` (2, n_edges) sender
        and receiver of each message, sorted by their species, then by receiver; ``edge_vector``
        (n_edges, 3) float64 from receiver to sender, Å; ``edge_kinds`` the number of messages of
        each pair of species, receiver first.
    """
    messages = ~pattern.is_onsite & (pattern.distance < message_cutoff_ang)
    i, j = pattern.pair[messages].T.astype(np.int64)
    vector = pattern.vector[messages]
    receiver, sender = np.concatenate([i, j]), np.concatenate([j, i])
    species = pattern.structure.species_in(basis.species)
    n_species = len(basis.species)
    kind = n_species * species[receiver] + species[sender]
    order = np.argsort(kind * len(species) + receiver, kind="stable")
    return Data(
        species=torch.from_numpy(species),
        edge_index=torch.from_numpy(np.stack([sender, receiver])[:, order]),
        edge_vector=torch.from_numpy(np.concatenate([vector, -vector])[order]),
        edge_kinds=np.bincount(kind, minlength=n_species**2).tolist(),
    )
