"""From features to blocks: of one site, and of the bond between two."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from vcmbench.basis import OrbitalBasis, Species, pair_label
from vcmbench.models.neural.frames import WignerTables
from vcmbench.models.neural.radial import splines
from vcmbench.models.neural.so2 import (
    FrameLayout,
    OrderGate,
    OrderLinear,
    Orders,
)
from vcmbench.models.neural.so3 import DegreeGate, DegreeLinear, SquareProduct
from vcmbench.models.symmetry import BondTensors, SiteTensors


class SiteHead(torch.nn.Module):
    """On-site blocks of one species, symmetric.

    Parameters
    ----------
    shells : tuple of int
        Its shells.
    l_max, channels : int
        Degrees and channels of the features.
    """

    def __init__(self, shells: tuple[int, ...], l_max: int, channels: int) -> None:
        super().__init__()
        self.mix, self.gate = DegreeLinear(l_max, channels, channels), DegreeGate(l_max, channels)
        self.square = SquareProduct(l_max, channels)
        tensors = {
            degree: tensor
            for degree, tensor in SiteTensors(shells).by_degree.items()
            if degree <= l_max
        }
        self.degrees = list(tensors)
        self.outputs = torch.nn.ModuleList(
            torch.nn.Linear(channels, len(tensor), bias=degree == 0)
            for degree, tensor in tensors.items()
        )
        for degree, tensor in tensors.items():
            self.register_buffer(f"tensor{degree}", torch.from_numpy(tensor), persistent=False)

    def forward(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, n_orbitals, n_orbitals) blocks."""
        features = self.square(self.gate(self.mix(features)))
        blocks: Tensor | float = 0.0
        for degree, output in zip(self.degrees, self.outputs, strict=True):
            components = output(features[:, degree**2 : (degree + 1) ** 2]).to(dtype)
            tensor = getattr(self, f"tensor{degree}").to(dtype)
            blocks = blocks + torch.einsum("nmc,cmab->nab", components, tensor)
        assert isinstance(blocks, Tensor)
        return 0.5 * (blocks + blocks.mT)


class BondHead(torch.nn.Module):
    """Blocks of bonds of all species pairs: a common trunk, an output for each pair.

    Parameters
    ----------
    basis : OrbitalBasis
        Species and shells.
    l_max, channels : int
        Degrees and channels of the features.
    hidden : int
        Channels of each order inside.
    n_splines : int
        Radial functions.
    cutoff_ang : float
        Where blocks vanish, Å.
    """

    def __init__(
        self,
        basis: OrbitalBasis,
        l_max: int,
        channels: int,
        hidden: int,
        n_splines: int,
        cutoff_ang: float,
    ) -> None:
        super().__init__()
        self.n_splines, self.cutoff_ang = n_splines, cutoff_ang
        highest = 2 * max(l for shells in basis.shells.values() for l in shells)
        self.basis = basis
        self.layout = FrameLayout(l_max, min(l_max, highest))
        self.wigner = WignerTables(max(l_max, highest // 2))
        pairs = list(combinations_with_replacement(basis.species, 2))
        self.index = {pair: k for k, pair in enumerate(pairs)}
        widths = self.layout.widths(2 * channels)
        inside = [hidden] * len(widths)
        self.radial = torch.nn.Parameter(torch.randn(len(pairs), n_splines, sum(inside)))
        self.first, self.first_gate = OrderLinear(widths, inside), OrderGate(inside)
        self.second, self.second_gate = OrderLinear(inside, inside), OrderGate(inside)
        self.outputs = torch.nn.ModuleDict(
            {
                pair_label(*pair): _BlockOutput(
                    BondTensors(*(basis.shells_of(s) for s in pair)), hidden, self.layout.m_max
                )
                for pair in pairs
            }
        )

    def forward(
        self,
        pair: tuple[Species, Species],
        first: Tensor,
        second: Tensor,
        vector: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Blocks of bonds of one species pair, without their size and envelope.

        Parameters
        ----------
        pair : tuple of Species
            Species of both ends, in canonical order.
        first, second : (n, (l_max + 1)², channels) float
            Features of both ends.
        vector : (n, 3) float64
            From the first end to the second, Å.
        dtype : torch.dtype
            Precision of the blocks.

        Returns
        -------
        (n, n_i, n_j) float
        """
        turns = self.wigner(vector)
        frame = self.layout.matrix(turns, first.dtype)
        framed = self._framed(pair, frame @ first, frame @ second, vector.norm(dim=1), dtype)
        left, right = (self._site_turn(species, turns, dtype) for species in pair)
        return left @ framed @ right.mT

    def _site_turn(self, species: Species, turns: list[Tensor], dtype: torch.dtype) -> Tensor:
        """(n, n_orbitals, n_orbitals) rotation of a site's orbitals from the frame."""
        slices = self.basis.shell_slices(species)
        size = slices[-1][1].stop
        matrix = turns[0].new_zeros(len(turns[0]), size, size, dtype=dtype)
        for l, orbitals in slices:
            matrix[:, orbitals, orbitals] = turns[l].to(dtype)
        return matrix

    def _framed(
        self,
        pair: tuple[Species, Species],
        first: Tensor,
        second: Tensor,
        distance_ang: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Blocks in the frames of the bonds, from features in the frames."""
        radial = splines(distance_ang, self.cutoff_ang, self.n_splines).to(first.dtype)
        weights = (radial @ self.radial[self.index[pair]])[:, None].chunk(self.layout.m_max + 1, 2)
        output = self.outputs[pair_label(*pair)]
        blocks = output(self._trunk(torch.cat([first, second], 2), weights), dtype)
        if pair[0] == pair[1]:
            reflection = self.layout.reflection.to(first)[:, None]
            reversed_ends = torch.cat([second, first], 2) * reflection
            mirrored = output(self._trunk(reversed_ends, weights), dtype)
            blocks = 0.5 * (blocks + output.turned(mirrored))
        return blocks

    def _trunk(self, ends: Tensor, weights: Sequence[Tensor]) -> Orders:
        """Mix both ends, weigh the result by the distance, gate, and mix again."""
        mixed = self.first(self.layout.split(ends))
        orders = [order * weight for order, weight in zip(mixed, weights, strict=True)]
        return self.second_gate(self.second(self.first_gate(orders)))


class _BlockOutput(torch.nn.Module):
    """Blocks of one species pair from the trunk."""

    def __init__(self, tensors: BondTensors, hidden: int, m_max: int) -> None:
        super().__init__()
        by_order = {m: tensor for m, tensor in tensors.by_order.items() if m <= m_max}
        self.outputs = torch.nn.ModuleList(
            torch.nn.Linear(hidden, len(tensor), bias=m == 0) for m, tensor in by_order.items()
        )
        for m, tensor in by_order.items():
            self.register_buffer(f"tensor{m}", torch.from_numpy(tensor), persistent=False)
        signs = [(-1.0) ** (l + m) for l in tensors.shells_j for m in range(-l, l + 1)]
        self.register_buffer("sign", torch.tensor(signs, dtype=torch.float64), persistent=False)

    def forward(self, orders: Orders, dtype: torch.dtype) -> Tensor:
        """(n, n_i, n_j) blocks in the frame."""
        blocks: Tensor | float = 0.0
        for m, output in enumerate(self.outputs):
            tensor = getattr(self, f"tensor{m}").to(dtype)
            blocks = blocks + torch.einsum("npc,cpab->nab", output(orders[m]).to(dtype), tensor)
        assert isinstance(blocks, Tensor)
        return blocks

    def turned(self, blocks: Tensor) -> Tensor:
        """Blocks of the reversed bond, made in the frame reflected across it, as of the bond."""
        sign = self.sign.to(blocks.dtype)
        return sign[:, None] * blocks.mT * sign


def start_from_zero(network: torch.nn.Module) -> None:
    """Have all blocks vanish before training: it starts from Slater–Koster."""
    for module in network.modules():
        if isinstance(module, (SiteHead, _BlockOutput)):
            for output in module.outputs:
                for parameter in output.parameters():
                    torch.nn.init.zeros_(parameter)
