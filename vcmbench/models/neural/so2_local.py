"""so2-local: a strictly local network of SO(2) convolutions, exactly equivariant under O(3).

Sites start from the density of their neighbours; each layer sends messages between neighbours, as
convolutions in the frame of the bond, and squares what a site has gathered. A block sees only the
sites within `layers + 1` times the message cutoff of one of its ends. The block of a bond is made
in its frame from the features of both ends and turned into the laboratory; for two sites of one
species it is the mean of what both directions give, so that H is Hermitian by construction from
half of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis
from vcmbench.models.neural.frames import WignerTables, real_harmonics
from vcmbench.models.neural.heads import BondHead, SiteHead, start_from_zero
from vcmbench.models.neural.network import BlockNetwork, BondList
from vcmbench.models.neural.radial import splines
from vcmbench.models.neural.settings import So2LocalSettings
from vcmbench.models.neural.so2 import (
    FrameLayout,
    OrderGate,
    OrderLinear,
)
from vcmbench.models.neural.so3 import DegreeGate, DegreeLinear, SquareProduct

MESSAGE_SCALE: Final = 0.2
"""Some 30 neighbours send messages: their sum stays of the size of each."""


class So2Local(BlockNetwork):
    """The network.

    Parameters
    ----------
    basis : OrbitalBasis
        Species it knows and their shells.
    settings : So2LocalSettings
        Shape.
    """

    def __init__(self, basis: OrbitalBasis, settings: So2LocalSettings) -> None:
        super().__init__(
            basis,
            message_cutoff_ang=settings.message_cutoff_ang,
            block_cutoff_ang=settings.block_cutoff_ang,
            reach_ang=(settings.layers + 1) * settings.message_cutoff_ang,
        )
        self.settings = settings
        n_species, channels, l_max = len(basis.species), settings.channels, settings.l_max
        self.wigner = WignerTables(l_max)
        self.density = torch.nn.Parameter(
            torch.randn(n_species**2, settings.n_splines, (l_max + 1) * channels)
            / settings.n_splines**0.5
        )
        self.kind = torch.nn.Embedding(n_species, channels)
        self.start = SquareProduct(l_max, channels)
        self.layers = torch.nn.ModuleList(
            _Interaction(n_species, settings) for _ in range(settings.layers)
        )
        self.site_heads = torch.nn.ModuleDict(
            {s.label: SiteHead(basis.shells_of(s), l_max, channels) for s in basis.species}
        )
        self.bond_head = BondHead(
            basis, l_max, channels, settings.hidden, settings.n_splines, settings.block_cutoff_ang
        )
        start_from_zero(self)

    def features(self, graph: Data, *, chunk: int) -> Tensor:
        """(n_sites, (l_max + 1)², channels) features."""
        start = self.kind(graph.species)[:, None]
        sites = torch.nn.functional.pad(start, (0, 0, 0, (self.settings.l_max + 1) ** 2 - 1))
        messages = _Messages.of(graph, chunk)
        sites = self.start(_gathered(self._density, sites, messages, sites))
        for layer in self.layers:
            sites = layer(sites, messages, self.wigner)
        return sites

    def _density(self, _sites: Tensor, bonds: _Messages) -> Tensor:
        """(n_edges, (l_max + 1)², channels) density of one neighbour, by the species of both."""
        settings, dtype = self.settings, self.density.dtype
        weights = bonds.radial(self.density, settings)
        harmonics = real_harmonics(settings.l_max, bonds.vector).to(dtype)
        repeats = torch.arange(1, 2 * settings.l_max + 2, 2, device=weights.device)
        spread = weights.unflatten(1, (len(repeats), -1)).repeat_interleave(repeats, dim=1)
        return harmonics[:, :, None] * spread

    def raw_bond_blocks(
        self, features: Tensor, bonds: BondList, dtype: torch.dtype
    ) -> list[Tensor]:
        """(n, n_i, n_j) blocks of each group of bonds."""
        blocks: list[Tensor] = self.bond_head(features, bonds, dtype)
        return blocks


class _Messages(NamedTuple):
    """Messages worked on at once, sorted by the species of both ends."""

    sender: Tensor
    receiver: Tensor
    vector: Tensor
    kinds: list[tuple[int, slice]]
    """Pairs of species and their messages."""

    @classmethod
    def of(cls, graph: Data, chunk: int) -> list[_Messages]:
        """All messages of a graph, at most `chunk` in a piece."""
        sender, receiver = graph.edge_index
        stops = np.cumsum(graph.edge_kinds)
        pieces = []
        for begin in range(0, len(sender), chunk):
            part = slice(begin, min(begin + chunk, len(sender)))
            bounds = np.clip([stops - graph.edge_kinds, stops], begin, part.stop).T - begin
            kinds = [(k, slice(*b)) for k, b in enumerate(bounds.tolist()) if b[1] > b[0]]
            pieces.append(cls(sender[part], receiver[part], graph.edge_vector[part], kinds))
        return pieces

    def radial(self, coefficients: Tensor, settings: So2LocalSettings) -> Tensor:
        """Functions of the distance, of each pair of species its own.

        Parameters
        ----------
        coefficients : (n_species², n_splines, n) float
            Of the pairs' functions.
        settings : So2LocalSettings
            Range and number of the splines.

        Returns
        -------
        (n_edges, n) float
        """
        values = self.splines(settings).to(coefficients.dtype)
        return torch.cat([values[place] @ coefficients[kind] for kind, place in self.kinds])

    def splines(self, settings: So2LocalSettings) -> Tensor:
        distance = self.vector.norm(dim=1)
        return splines(distance, settings.message_cutoff_ang, settings.n_splines)


def _gathered(
    message: Callable[[Tensor, _Messages], Tensor],
    total: Tensor,
    chunks: list[_Messages],
    sites: Tensor,
) -> Tensor:
    """Sum of all messages; what is inside a chunk is not kept for the backward pass."""
    for bonds in chunks:
        arriving = checkpoint(message, sites, bonds, use_reentrant=False)
        total = total.index_add(0, bonds.receiver, arriving)
    return total


class _Interaction(torch.nn.Module):
    """One round of messages, and the square of what arrives."""

    def __init__(self, n_species: int, settings: So2LocalSettings) -> None:
        super().__init__()
        self.settings = settings
        l_max, channels = settings.l_max, settings.channels
        self.layout = FrameLayout(l_max, l_max)
        self.register_buffer("places", self.layout.places(l_max), persistent=False)
        hidden = [settings.hidden] * (l_max + 1)
        self.radial = torch.nn.Parameter(torch.randn(n_species**2, settings.n_splines, sum(hidden)))
        self.first = OrderLinear(self.layout.widths(2 * channels), hidden)
        self.gate = OrderGate(hidden)
        self.second = OrderLinear(hidden, self.layout.widths(channels))
        self.own = DegreeLinear(l_max, channels, channels)
        self.update = DegreeGate(l_max, channels)
        self.square = SquareProduct(l_max, channels)

    def forward(self, sites: Tensor, chunks: list[_Messages], wigner: WignerTables) -> Tensor:
        """Features after the round."""

        def message(sites: Tensor, bonds: _Messages) -> Tensor:
            frame = wigner(bonds.vector).compose(self.places, sites.dtype)
            return self._message(sites, bonds, frame)

        gathered = _gathered(message, torch.zeros_like(sites), chunks, sites)
        return self.square(sites + self.update(self.own(gathered * MESSAGE_SCALE)))

    def _message(self, sites: Tensor, bonds: _Messages, frame: Tensor) -> Tensor:
        envelope = bonds.splines(self.settings).to(sites.dtype).sum(1)[:, None, None]
        radial = bonds.radial(self.radial, self.settings)
        weights = radial[:, None].chunk(self.settings.l_max + 1, 2)
        ends = [sites.index_select(0, end) for end in (bonds.receiver, bonds.sender)]
        mixed = self.first(self.layout.split(frame @ torch.cat(ends, 2)))
        weighted = [order * weight for order, weight in zip(mixed, weights, strict=True)]
        messages = self.layout.join(self.second(self.gate(weighted)))
        # Gates and biases do not vanish at the cutoff by themselves: the sum of all splines does.
        return frame.mT @ (messages * envelope)
