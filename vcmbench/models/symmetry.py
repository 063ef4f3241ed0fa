"""Components of Hamiltonian blocks that do not mix under rotations.

An on-site block is a sum of spherical tensors of degree L. The block of a bond, seen in a frame
whose z axis is the bond, is a sum of terms that turn by cos(mφ) and sin(mφ) when the frame is
turned by φ about the bond; those of order m = 0 are the two-centre integrals of Slater and Koster
(Phys. Rev. 94, 1498 (1954)): ssσ, spσ, ppσ, ppπ, ... Only terms even under inversion and under
reflection in a plane through the bond are kept: shells have natural parity, so no others occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from vcmbench.harmonics import coupling
from vcmbench.structure import FloatArray, IntArray


@dataclass(frozen=True)
class SiteTensors:
    """Orthonormal basis of symmetric on-site blocks.

    Parameters
    ----------
    shells : tuple of int
        Angular momenta of the site's shells.
    """

    shells: tuple[int, ...]

    @cached_property
    def by_degree(self) -> dict[int, FloatArray]:
        """(n_channels, 2L + 1, n, n) tensors of each degree L; a channel is a pair of shells."""
        starts = _starts(self.shells)
        found: dict[int, list[FloatArray]] = {}
        for a, la in enumerate(self.shells):
            for b, lb in enumerate(self.shells[: a + 1]):
                for degree in range(abs(la - lb), la + lb + 1, 2):
                    tensor = np.zeros((2 * degree + 1, starts[-1], starts[-1]))
                    tensor[:, starts[a] : starts[a + 1], starts[b] : starts[b + 1]] = np.moveaxis(
                        coupling(la, lb, degree), 2, 0
                    )
                    if a != b:
                        tensor = (tensor + tensor.transpose(0, 2, 1)) / sqrt(2)
                    found.setdefault(degree, []).append(tensor)
        return {degree: np.array(found[degree]) for degree in sorted(found)}


@dataclass(frozen=True)
class BondTensors:
    """Orthonormal basis of blocks in the bond frame.

    Parameters
    ----------
    shells_i, shells_j : tuple of int
        Angular momenta of the shells of both ends.
    """

    shells_i: tuple[int, ...]
    shells_j: tuple[int, ...]

    @cached_property
    def channels(self) -> dict[int, list[_Channel]]:
        """Channels of each order m."""
        found: dict[int, list[_Channel]] = {}
        for channel in _channels(self.shells_i, self.shells_j):
            found.setdefault(channel.order, []).append(channel)
        return {order: found[order] for order in sorted(found)}

    @cached_property
    def by_order(self) -> dict[int, FloatArray]:
        """(n_channels, 1 or 2, n_i, n_j) tensors of each order m: the cosine, then the sine."""
        starts_i, starts_j = _starts(self.shells_i), _starts(self.shells_j)
        result = {}
        for order, channels in self.channels.items():
            tensors = np.zeros((len(channels), min(order, 1) + 1, starts_i[-1], starts_j[-1]))
            for tensor, channel in zip(tensors, channels, strict=True):
                centre_i = starts_i[channel.a] + self.shells_i[channel.a]
                centre_j = starts_j[channel.b] + self.shells_j[channel.b]
                for part, di, dj, value in channel.entries():
                    tensor[part, centre_i + di, centre_j + dj] = value
                tensor /= np.linalg.norm(tensor[0])
            result[order] = tensors
        return result

    def mirrored(self, order: int) -> tuple[IntArray, FloatArray]:
        """Channels of the reversed bond between sites of equal shells.

        Returns
        -------
        channel : (n_channels,) int
            The channel of the block H_ji that mirrors each channel of H_ij.
        sign : (n_channels,) float
            (-1)^(la + lb), the factor between both if nothing else tells the ends apart.
        """
        channels = self.channels[order]
        index = [channels.index(_Channel(c.b, c.a, c.mb, c.ma, c.is_sum)) for c in channels]
        parity = [self.shells_i[c.a] + self.shells_j[c.b] for c in channels]
        return np.array(index), (-1.0) ** np.array(parity)


@dataclass(frozen=True)
class _Channel:
    """Products of |m| = `ma` of shell `a` and |m| = `mb` of shell `b` of one order."""

    a: int
    b: int
    ma: int
    mb: int
    is_sum: bool
    """Whether the order is ma + mb; otherwise it is |ma - mb|."""

    @property
    def order(self) -> int:
        return self.ma + self.mb if self.is_sum else abs(self.ma - self.mb)

    def entries(self) -> Iterator[tuple[int, int, int, float]]:
        """(0 cosine or 1 sine, m of row, m of column, value) of the tensor, not normalised.

        With c_m = cos(mφ) at +m and s_m = sin(mφ) at -m these are the addition theorems
        cos(a ± b) = c_a c_b ∓ s_a s_b and sin(a ± b) = s_a c_b ± c_a s_b.
        """
        ma, mb = self.ma, self.mb
        second = 1.0 if self.is_sum else -1.0
        yield 0, ma, mb, 1.0
        if ma and mb:
            yield 0, -ma, -mb, -second
        if self.order:
            turn = 1.0 if self.is_sum or ma > mb else -1.0
            if ma:
                yield 1, -ma, mb, turn
            if mb:
                yield 1, ma, -mb, turn * second


def _channels(shells_i: Sequence[int], shells_j: Sequence[int]) -> Iterator[_Channel]:
    for a, la in enumerate(shells_i):
        for b, lb in enumerate(shells_j):
            for ma in range(la + 1):
                for mb in range(lb + 1):
                    yield _Channel(a, b, ma, mb, is_sum=True)
                    if ma and mb:
                        yield _Channel(a, b, ma, mb, is_sum=False)


def _starts(shells: Sequence[int]) -> IntArray:
    """(n_shells + 1,) first orbital of each shell."""
    return np.concatenate([[0], np.cumsum([2 * l + 1 for l in shells])]).astype(np.int64)
