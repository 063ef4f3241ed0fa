"""Linear maps and gates on features in the frame of a bond.

In the frame of a bond, features of degree l have components m = −l … l; a turn about the bond mixes
only m with −m, and a reflection in a plane through the bond changes the sign of the sines. What is
equivariant under both is one real weight for each pair of channels of one order |m|, the same for
the cosine and the sine: convolutions of SO(3) reduce to matrix products (Passaro and Zitnick,
arXiv:2302.03655; the restriction to real weights makes them equivariant under O(3)).

Features of one order are tensors (n_edges, 1 or 2, n_channels): the cosine, then the sine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Orders = list[Tensor]
"""Features of the orders 0, 1, 2, …"""


@dataclass(frozen=True)
class FrameLayout:
    """How the components of features stand in the frame of a bond: sorted by order.

    Parameters
    ----------
    l_max : int
        Highest degree of the features.
    m_max : int
        Highest order that is kept.
    """

    l_max: int
    m_max: int

    @cached_property
    def components(self) -> list[tuple[int, int]]:
        """(l, m) of each component: for each order the cosines, then the sines."""
        return [
            (l, part)
            for m in range(self.m_max + 1)
            for part in ([m, -m] if m else [0])
            for l in range(m, self.l_max + 1)
        ]

    def widths(self, channels: int) -> list[int]:
        """Channels of each order, if each degree has so many."""
        return [channels * (self.l_max + 1 - m) for m in range(self.m_max + 1)]

    def matrix(self, turns: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """(n, n_components, (l_max + 1)²) rotations to the frame, from those of each degree."""
        first = turns[0]
        size = (self.l_max + 1) ** 2
        matrix = torch.zeros(
            len(first), len(self.components), size, dtype=dtype, device=first.device
        )
        for row, (l, m) in enumerate(self.components):
            matrix[:, row, l * l : (l + 1) ** 2] = turns[l][:, :, l + m]
        return matrix

    def split(self, framed: Tensor) -> Orders:
        """Sort (n, n_components, channels) by order."""
        counts = [(self.l_max + 1 - m) * min(m + 1, 2) for m in range(self.m_max + 1)]
        parts = framed.split(counts, 1)
        return [part.unflatten(1, (min(m + 1, 2), -1)).flatten(2) for m, part in enumerate(parts)]

    def join(self, orders: Orders) -> Tensor:
        """Inverse of `split`."""
        return torch.cat(
            [
                order.unflatten(2, (self.l_max + 1 - m, -1)).flatten(1, 2)
                for m, order in enumerate(orders)
            ],
            1,
        )

    @cached_property
    def reflection(self) -> Tensor:
        """(n_components,) factors (−1)^(l + m) of a reflection at the plane across the bond."""
        return torch.tensor([(-1.0) ** (l + m) for l, m in self.components])


class OrderLinear(torch.nn.Module):
    """One matrix for each order; a bias for order 0.

    Parameters
    ----------
    widths_in, widths_out : sequence of int
        Channels of each order.
    """

    def __init__(self, widths_in: Sequence[int], widths_out: Sequence[int]) -> None:
        super().__init__()
        self.maps = torch.nn.ModuleList(
            torch.nn.Linear(n_in, n_out, bias=m == 0)
            for m, (n_in, n_out) in enumerate(zip(widths_in, widths_out, strict=True))
        )

    def forward(self, orders: Orders) -> Orders:
        """Map the channels of each order."""
        return [linear(order) for linear, order in zip(self.maps, orders, strict=True)]


class OrderGate(torch.nn.Module):
    """SiLU on order 0; higher orders are multiplied by sigmoids of it.

    Parameters
    ----------
    widths : sequence of int
        Channels of each order.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.gates = torch.nn.ModuleList(torch.nn.Linear(widths[0], n) for n in widths[1:])

    def forward(self, orders: Orders) -> Orders:
        """Apply the gates."""
        scalars, *others = orders
        gated = [
            order * torch.sigmoid(gate(scalars))
            for gate, order in zip(self.gates, others, strict=True)
        ]
        return [torch.nn.functional.silu(scalars), *gated]
