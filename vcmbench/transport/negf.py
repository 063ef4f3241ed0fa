"""Transmission of a two-terminal device at real energies, without broadening in the device.

T = ||W_l^dagger G W_r||_F^2, where Gamma = W W^dagger of each lead. Both factors are carried
towards a meeting window by elimination of layer after layer (`layers` draws one step)::

    A = E S - H,    F = A - Sigma         on the front of the layers eliminated so far
    X = F_11^-1 F_12                      1 = the next layer, 2 = the rest of the front
    Sigma_22  <-  Sigma_22 + F_21 X       connected self-energy
    W_2^dagger <- W_2^dagger - W_1^dagger X

Gamma is thus only ever multiplied. Forming it as i(Sigma - Sigma^dagger) inside a barrier would
cancel: with complex H the relative error at T = 1e-12 is of order one. The sweep from the right is
the sweep from the left over the mirrored, transposed matrix. Since A, the layers and both
self-energies enter the two sweeps alike, T must not depend on the window where they meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse

from vcmbench.structure import FloatArray
from vcmbench.transport.arrays import HOST, Arrays, ComplexArray, Matrix
from vcmbench.transport.layers import Layers


class Contact(NamedTuple):
    """Effect of a lead on the orbitals of its contact, in transport order.

    Attributes
    ----------
    sigma : (n, n) complex
        Retarded self-energy in eV.
    factor : (n, n_columns) complex
        W with W W^dagger = i(sigma - sigma^dagger), in eV^1/2.
    """

    sigma: ComplexArray
    factor: ComplexArray


class _Front(NamedTuple):
    """Left part of a device seen from the orbitals it couples to."""

    sigma: Matrix
    probe: Matrix


class _Blocks(NamedTuple):
    """H and S on the same rows and columns."""

    h: Matrix
    s: Matrix

    def at(self, energy_ev: float) -> Matrix:
        """Return A = E S - H."""
        a = self.s * energy_ev
        a -= self.h
        return a


@dataclass(frozen=True)
class _Sweep:
    """The layers of a device in the order in which one sweep eliminates them."""

    layers: Layers
    strips: list[_Blocks]
    arrays: Arrays

    def run(self, energy_ev: float, front: _Front, stops: Sequence[int]) -> dict[int, _Front]:
        """Fronts just before each layer in `stops` is eliminated."""
        fronts = {}
        for layer in range(max(stops) + 1):
            if layer in stops:
                fronts[layer] = front
            if layer < max(stops):
                front = _eliminate(self.strips[layer].at(energy_ev), front, self.arrays)
        return fronts


def _eliminate(rows: Matrix, front: _Front, arrays: Arrays) -> _Front:
    """Eliminate one layer.

    Parameters
    ----------
    rows : (w, w + f) complex
        A of the layer against its front.
    front : _Front
        Before elimination; it may end before the new front does.
    arrays : Arrays
        Where the matrices are.
    """
    w, n = rows.shape[0], len(front.sigma)
    columns = arrays.copy(rows[:, w:].conj().T)
    columns[: n - w] -= front.sigma[w:, :w]
    rows[:, :n] -= front.sigma[:w]
    x = arrays.solve(rows[:, :w], rows[:, w:])
    # Unlike scipy's zgemm, matmul lets other threads run meanwhile.
    sigma = columns @ x
    sigma[: n - w, : n - w] += front.sigma[w:, w:]
    probe = -(front.probe[:, :w] @ x)
    probe[:, : n - w] += front.probe[:, w:]
    return _Front(sigma, probe)


class Device:
    """A device at one k-point, ready to be solved at any energy.

    Parameters
    ----------
    h, s : csr_array
        (n, n) Hermitian H (eV) and S with the orbitals in transport order.
    layers : Layers
        Their layers.
    meet : sequence of int, optional
        Layers with which the meeting windows begin; `Layers.meeting_layers` unless given.
    arrays : Arrays
        Where to compute.
    """

    def __init__(
        self,
        h: scipy.sparse.csr_array,
        s: scipy.sparse.csr_array,
        layers: Layers,
        meet: Sequence[int] | None = None,
        arrays: Arrays = HOST,
    ) -> None:
        self.layers, self.arrays = layers, arrays
        starts = layers.meeting_layers() if meet is None else meet
        self.windows = [layers.window(layer) for layer in starts]
        mirror = slice(None, None, -1)
        self._left = self._sweep(h, s, layers, max(w.start for w in self.windows))
        self._right = self._sweep(
            h[mirror][:, mirror].conj(),
            s[mirror][:, mirror].conj(),
            layers.mirrored(),
            layers.n_layers - min(w.stop for w in self.windows),
        )
        spans = [self._span(window) for window in self.windows]
        self._meeting = [self._dense(h, s, span, span) for span in spans]

    def _sweep(
        self, h: scipy.sparse.csr_array, s: scipy.sparse.csr_array, layers: Layers, n: int
    ) -> _Sweep:
        edges, reach = layers.edges, layers.reach
        strips = [
            self._dense(h, s, slice(edges[i], edges[i + 1]), slice(edges[i], reach[i]))
            for i in range(n)
        ]
        return _Sweep(layers, strips, self.arrays)

    def _dense(
        self, h: scipy.sparse.csr_array, s: scipy.sparse.csr_array, rows: slice, columns: slice
    ) -> _Blocks:
        return _Blocks(*(self.arrays.matrix(m[rows][:, columns]) for m in (h, s)))

    def _span(self, window: slice) -> slice:
        edges = self.layers.edges
        return slice(int(edges[window.start]), int(edges[window.stop]))

    def transmission(self, energy_ev: float, left: Contact, right: Contact) -> FloatArray:
        """T at one energy, evaluated in each meeting window.

        Parameters
        ----------
        energy_ev : float
            Energy in the gauge of H.
        left, right : Contact
            Self-energies on the first and on the last orbitals.

        Returns
        -------
        (n_windows,) float
            The same number up to rounding.
        """
        n_layers, arrays = self.layers.n_layers, self.arrays
        from_left = self._left.run(
            energy_ev,
            _Front(arrays.array(left.sigma), arrays.array(left.factor.conj().T)),
            [w.start for w in self.windows],
        )
        from_right = self._right.run(
            energy_ev,
            _Front(arrays.array(right.sigma[::-1, ::-1].T), arrays.array(right.factor[::-1].T)),
            [n_layers - w.stop for w in self.windows],
        )
        return np.array(
            [
                _meet(a.at(energy_ev), from_left[w.start], from_right[n_layers - w.stop], arrays)
                for a, w in zip(self._meeting, self.windows, strict=True)
            ]
        )


def _meet(a: Matrix, left: _Front, right: _Front, arrays: Arrays) -> float:
    """||W_l^dagger G W_r||_F^2 in a window that holds both fronts: left first, right last."""
    n_left, n_right = len(left.sigma), len(right.sigma)
    a[:n_left, :n_left] -= left.sigma
    a[len(a) - n_right :, len(a) - n_right :] -= arrays.mirrored(right.sigma)
    source = arrays.zeros(len(a), len(right.probe))
    source[len(a) - n_right :] = arrays.turned(right.probe)
    response = arrays.solve(a, source)
    return arrays.sum_of_squares(left.probe @ response[:n_left])
