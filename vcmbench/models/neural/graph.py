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
        ``species`` (n_sites,) index into ``basis.species``; ``edge_index`` (2, n_edges) sender
        and receiver of each message, sorted by their species, then by receiver; ``edge_vector``
        (n_edges, 3) float64 from receiver to sender, Å; ``edge_kinds`` the number of messages of
        each pair of species, receiver first.

    Raises
    ------
    VcmbenchError
        If the structure has a species that the basis lacks.
    """
    require_known_species(SOURCE, structure, basis)
    pattern = BlockPattern.from_structure(structure, basis, message_cutoff_ang)
    apart = ~pattern.is_onsite
    i, j = pattern.pair[apart].T.astype(np.int64)
    vector = pattern.vector[apart]
    receiver, sender = np.concatenate([i, j]), np.concatenate([j, i])
    species = structure.species_in(basis.species)
    order = np.lexsort((receiver, species[sender], species[receiver]))
    n_species = len(basis.species)
    kinds = np.bincount(n_species * species[receiver] + species[sender], minlength=n_species**2)
    return Data(
        species=torch.from_numpy(species),
        edge_index=torch.from_numpy(np.stack([sender, receiver])[:, order]),
        edge_vector=torch.from_numpy(np.concatenate([vector, -vector])[order]),
        edge_kinds=kinds.tolist(),
    )
