"""What all networks have in common: features of sites, and blocks made of them."""

from __future__ import annotations

from abc import abstractmethod
from itertools import combinations_with_replacement

import torch
from torch import Tensor
from torch_geometric.data import Data

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.models.neural.radial import envelope

Pair = tuple[Species, Species]


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

    @abstractmethod
    def raw_bond_blocks(
        self, pair: Pair, first: Tensor, second: Tensor, vector: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """(n, n_i, n_j) blocks of bonds, without their size and envelope.

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

    def bond_blocks(
        self, pair: Pair, first: Tensor, second: Tensor, vector: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Blocks of bonds of one species pair.

        Parameters
        ----------
        pair : tuple of Species
            Species of both ends, in canonical order.
        first, second : (n, …) float
            Features of both ends.
        vector : (n, 3) float64
            From the first end to the second, Å.
        dtype : torch.dtype
            Precision of the blocks.

        Returns
        -------
        (n, n_i, n_j) float
            eV.
        """
        size = self.bond_scale_ev[self.pairs.index(pair)].to(dtype)
        factor = size * envelope(vector.norm(dim=1).to(dtype), self.block_cutoff_ang)
        return factor[:, None, None] * self.raw_bond_blocks(pair, first, second, vector, dtype)
