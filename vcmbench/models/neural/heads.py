"""From features to blocks: of one site, and of the bond between two."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from vcmbench.basis import OrbitalBasis, pair_label
from vcmbench.models.neural.expansion import Expansion
from vcmbench.models.neural.frames import WignerTables, site_places
from vcmbench.models.neural.network import BondList, Group
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
        self.expansion = Expansion(list(tensors.values()))

    def forward(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, n_orbitals, n_orbitals) blocks."""
        features = self.square(self.gate(self.mix(features)))
        components = [
            output(features[:, degree**2 : (degree + 1) ** 2])
            for degree, output in zip(self.degrees, self.outputs, strict=True)
        ]
        blocks: Tensor = self.expansion(components, dtype)
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
        self.layout = FrameLayout(l_max, min(l_max, highest))
        self.wigner = WignerTables(max(l_max, highest // 2))
        frame = self.layout.places(self.wigner.l_max)
        self.register_buffer("frame_places", frame, persistent=False)
        for species in basis.species:
            places = site_places(basis, species, self.wigner.l_max)
            self.register_buffer(f"site_places_{species.label}", places, persistent=False)
        reflection = self.layout.reflection[:, None]
        self.register_buffer("reflection", reflection, persistent=False)
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

    def forward(self, features: Tensor, bonds: BondList, dtype: torch.dtype) -> list[Tensor]:
        """Blocks of bonds, without their size and envelope.

        Parameters
        ----------
        features : (n_sites, (l_max + 1)², channels) float
            Features of all sites.
        bonds : BondList
            Which bonds.
        dtype : torch.dtype
            Precision of the blocks.

        Returns
        -------
        list of (n, n_i, n_j) float
            Blocks of each group.
        """
        turns = self.wigner(bonds.vector)
        frame = turns.compose(self.frame_places, features.dtype)
        ends = [frame @ features.index_select(0, end) for end in (bonds.first, bonds.second)]
        alike = [group for group in bonds.groups if group.is_alike]
        mirrored = self._trunk(ends[::-1], bonds, alike, self.reflection) if alike else []
        reverse = dict(zip((group.pair for group in alike), mirrored, strict=True))
        forward = self._trunk(ends, bonds, bonds.groups)
        blocks = []
        for group, orders in zip(bonds.groups, forward, strict=True):
            output = self.outputs[pair_label(*group.pair)]
            framed = output(orders, dtype)
            if group.is_alike:
                framed = 0.5 * (framed + output.turned(output(reverse[group.pair], dtype)))
            turn = turns[group.place]
            left, right = (
                turn.compose(getattr(self, f"site_places_{s.label}"), dtype) for s in group.pair
            )
            blocks.append(left @ framed @ right.mT)
        return blocks

    def _trunk(
        self,
        ends: Sequence[Tensor],
        bonds: BondList,
        groups: Sequence[Group],
        factor: Tensor | None = None,
    ) -> list[Orders]:
        """Mix both ends, weigh the result by the distance, gate, and mix again; by groups."""
        places = [group.place for group in groups]
        framed = torch.cat([torch.cat([end[p] for p in places]) for end in ends], 2)
        if factor is not None:
            framed = framed * factor.to(framed.dtype)
        distance = bonds.vector.norm(dim=1)
        radial = splines(distance, self.cutoff_ang, self.n_splines).to(framed.dtype)
        weights = torch.cat([radial[g.place] @ self.radial[self.index[g.pair]] for g in groups])
        mixed = self.first(self.layout.split(framed))
        weighted = weights[:, None].chunk(self.layout.m_max + 1, 2)
        orders = [order * weight for order, weight in zip(mixed, weighted, strict=True)]
        orders = self.second_gate(self.second(self.first_gate(orders)))
        sizes = [place.stop - place.start for place in places]
        return [list(parts) for parts in zip(*(o.split(sizes) for o in orders), strict=True)]


class _BlockOutput(torch.nn.Module):
    """Blocks of one species pair from the trunk."""

    def __init__(self, tensors: BondTensors, hidden: int, m_max: int) -> None:
        super().__init__()
        by_order = {m: tensor for m, tensor in tensors.by_order.items() if m <= m_max}
        self.outputs = torch.nn.ModuleList(
            torch.nn.Linear(hidden, len(tensor), bias=m == 0) for m, tensor in by_order.items()
        )
        self.expansion = Expansion(list(by_order.values()))
        signs = [(-1.0) ** (l + m) for l in tensors.shells_j for m in range(-l, l + 1)]
        self.register_buffer("sign", torch.tensor(signs, dtype=torch.float64), persistent=False)

    def forward(self, orders: Orders, dtype: torch.dtype) -> Tensor:
        """(n, n_i, n_j) blocks in the frame."""
        components = [output(order) for output, order in zip(self.outputs, orders, strict=False)]
        blocks: Tensor = self.expansion(components, dtype)
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
