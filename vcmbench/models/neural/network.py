"""What all networks have in common: features of sites, and blocks made of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate, combinations_with_replacement
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.models.neural.radial import envelope

Pair = tuple[Species, Species]


class Group(NamedTuple):
    """BondList of one species pair among others.

    Attributes
    ----------
    pair : tuple of Species
        Species of both ends, in canonical order.
    place : slice
        Which bonds.
    """

    pair: Pair
    place: slice

    @property
    def is_alike(self) -> bool:
        """Whether both ends are of one species: its blocks are made from both directions."""
        return self.pair[0] == self.pair[1]


class BondList(NamedTuple):
    """BondList worked on at once, sorted by their species pair.

    Attributes
    ----------
    first, second : (n,) int
        Sites at both ends.
    vector : (n, 3) float64
        From the first end to the second, Å.
    groups : sequence of Group
        Where the species pairs are; together all bonds.
    """

    first: Tensor
    second: Tensor
    vector: Tensor
    groups: Sequence[Group]

    def reversed(self, groups: Sequence[Group]) -> BondList:
        """BondList of some groups, from the second end to the first."""
        places = [group.place for group in groups]
        stops = list(accumulate(place.stop - place.start for place in places))
        first, second, vector = (
            torch.cat([array[place] for place in places])
            for array in (self.second, self.first, -self.vector)
        )
        turned = [
            Group((b, a), slice(start, stop))
            for ((a, b), _), start, stop in zip(groups, [0, *stops], stops, strict=False)
        ]
        return BondList(first, second, vector, turned)


class BlockMaker(Protocol):
    """Makes blocks of features of sites: a network, or Slater–Koster."""

    @property
    def basis(self) -> OrbitalBasis:
        """Species it knows and their shells."""

    @property
    def message_cutoff_ang(self) -> float:
        """Range of the edges of its graphs, Å."""

    @property
    def block_cutoff_ang(self) -> float:
        """Range of its blocks, Å."""

    def features(self, graph: Data, *, chunk: int) -> Tensor:
        """Features of all sites, from messages of at most `chunk` edges at once."""

    def site_blocks(self, species: Species, features: Tensor, dtype: torch.dtype) -> Tensor:
        """On-site blocks of sites of one species, eV."""

    def bond_blocks(self, features: Tensor, bonds: BondList, dtype: torch.dtype) -> list[Tensor]:
        """Blocks of each group of bonds, eV."""


class BlockNetwork(torch.nn.Module):
    """A network that adds blocks to Slater–Koster's.

    Blocks of a species and of a pair of species have a size of their own, which training measures;
    those of bonds follow an envelope that vanishes smoothly at their cutoff.

    Parameters
    ----------
    basis : OrbitalBasis
        Species it knows and their shells.
    message_cutoff_ang : float
        Range of the edges of its graphs, Å.
    block_cutoff_ang : float
        Range of its blocks, Å.
    reach_ang : float
        Distance from its nearer end up to which sites matter to a block, Å.

    Attributes
    ----------
    site_heads : ModuleDict
        For each species' label what makes (n, n_orbitals, n_orbitals) symmetric blocks of features
        and a dtype, without their size; each network makes its own.
    """

    site_heads: torch.nn.ModuleDict

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        message_cutoff_ang: float,
        block_cutoff_ang: float,
        reach_ang: float,
    ) -> None:
        super().__init__()
        self.basis = basis
        self.message_cutoff_ang, self.block_cutoff_ang = message_cutoff_ang, block_cutoff_ang
        self.reach_ang = reach_ang
        self.pairs: list[Pair] = list(combinations_with_replacement(basis.species, 2))
        self.register_buffer("site_scale_ev", torch.ones(len(basis.species)))
        self.register_buffer("bond_scale_ev", torch.ones(len(self.pairs)))

    @abstractmethod
    def features(self, graph: Data, *, chunk: int) -> Tensor:
        """Features of all sites.

        Parameters
        ----------
        graph : Data
            `vcmbench.models.neural.graph.structure_graph` with the message cutoff.
        chunk : int
            Largest number of messages worked on at once.

        Returns
        -------
        (n_sites, …) float
        """

    def calibrate(self, graph: Data) -> None:
        """Measure on a graph what keeps features of the order of one; nothing unless needed."""

    @abstractmethod
    def raw_bond_blocks(
        self, features: Tensor, bonds: BondList, dtype: torch.dtype
    ) -> list[Tensor]:
        """(n, n_i, n_j) blocks of each group of bonds, without their size and envelope.

        For two sites of one species the block of the reversed bond must be the transpose.
        """

    def site_blocks(self, species: Species, features: Tensor, dtype: torch.dtype) -> Tensor:
        """On-site blocks.

        Parameters
        ----------
        species : Species
            Of all the sites.
        features : (n, …) float
            Their features.
        dtype : torch.dtype
            Precision of the blocks.

        Returns
        -------
        (n, n_orbitals, n_orbitals) float
            eV.
        """
        size = self.site_scale_ev[self.basis.species.index(species)].to(dtype)
        return size * self.site_heads[species.label](features, dtype)

    def bond_blocks(self, features: Tensor, bonds: BondList, dtype: torch.dtype) -> list[Tensor]:
        """Blocks of bonds.

        Parameters
        ----------
        features : (n_sites, …) float
            Features of all sites.
        bonds : BondList
            Which bonds.
        dtype : torch.dtype
            Precision of the blocks.

        Returns
        -------
        list of (n, n_i, n_j) float
            Blocks of each group, eV.
        """
        sizes = self.bond_scale_ev.to(dtype)
        factor = envelope(bonds.vector.norm(dim=1).to(dtype), self.block_cutoff_ang)
        return [
            (sizes[self.pairs.index(group.pair)] * factor[group.place])[:, None, None] * blocks
            for group, blocks in zip(
                bonds.groups, self.raw_bond_blocks(features, bonds, dtype), strict=True
            )
        ]
