"""Sizes of the targets: what a network's outputs are multiplied with, to be about one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import torch

from vcmbench.models.neural.network import BlockNetwork
from vcmbench.models.neural.radial import envelope
from vcmbench.structure import FloatArray
from vcmbench.training.supervision import Supervised


def set_scales(network: BlockNetwork, pieces: Sequence[Supervised]) -> None:
    """Give every species and every species pair the size of its targets.

    It is their root mean square over that of the envelope they are multiplied with. What no piece
    holds gets zero: nothing is known of it, and Slater–Koster stands alone.
    """
    sites, bonds = _Squares(), _Squares()
    for piece in pieces:
        pattern = piece.pattern
        size = envelope(torch.from_numpy(pattern.distance), network.block_cutoff_ang).numpy()
        for slab in pattern.slabs:
            onsite = pattern.is_onsite[slab.blocks]
            values = piece.target[slab.entries].reshape(slab.n_blocks, -1)
            weights = np.broadcast_to(size[slab.blocks, None], values.shape)
            sites.add(slab.species_i, values[onsite], np.ones_like(values[onsite]))
            bonds.add((slab.species_i, slab.species_j), values[~onsite], weights[~onsite])
    for index, species in enumerate(network.basis.species):
        network.site_scale_ev[index] = sites.ratio(species)
    for index, pair in enumerate(network.pairs):
        network.bond_scale_ev[index] = bonds.ratio(pair)


class _Squares:
    """Sums of squares, of values and of what they are measured in, by key."""

    def __init__(self) -> None:
        self._sums: defaultdict[Hashable, FloatArray] = defaultdict(lambda: np.zeros(2))

    def add(self, key: Hashable, values: FloatArray, units: FloatArray) -> None:
        self._sums[key] += [(values**2).sum(), (units**2).sum()]

    def ratio(self, key: Hashable) -> float:
        values, units = self._sums[key]
        return float((values / units) ** 0.5) if units else 0.0
