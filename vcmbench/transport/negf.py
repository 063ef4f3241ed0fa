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
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, lapack

from vcmbench.structure import FloatArray
from vcmbench.transport.layers import Layers

ComplexArray = NDArray[np.complex128]


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

    sigma: ComplexArray
    probe: ComplexArray


class _Blocks(NamedTuple):
    """H and S on the same rows and columns."""

    h: ComplexArray
    s: ComplexArray

    def at(self, energy_ev: float) -> ComplexArray:
        """Return A = E S - H."""
        a = self.s * energy_ev
        a -= self.h
        return a


def _dense(
    h: scipy.sparse.csr_array, s: scipy.sparse.csr_array, rows: slice, columns: slice
) -> _Blocks:
    blocks = (m[rows][:, columns].toarray().astype(np.complex128) for m in (h, s))
    return _Blocks(*(np.asfortranarray(block) for block in blocks))


@dataclass(frozen=True)
class _Sweep:
    """The layers of a device in the order in which one sweep eliminates them."""

    layers: Layers
    strips: list[_Blocks]

    def run(
        self, energy_ev: float, sigma: ComplexArray, probe: ComplexArray, stops: Sequence[int]
    ) -> dict[int, _Front]:
        """Fronts just before each layer in `stops` is eliminated."""
        front = _Front(sigma, probe)
        fronts = {}
        for layer in range(max(stops) + 1):
            if layer in stops:
                fronts[layer] = front
            if layer < max(stops):
                front = _eliminate(self.strips[layer].at(energy_ev), front)
        return fronts


def _eliminate(rows: ComplexArray, front: _Front) -> _Front:
    """Eliminate one layer.

    Parameters
    ----------
    rows : (w, w + f) complex
        A of the layer against its front.
    front : _Front
        Before elimination; it may end before the new front does.
    """
    w, n = rows.shape[0], len(front.sigma)
    columns = np.asfortranarray(rows[:, w:].conj().T)
    columns[: n - w] -= front.sigma[w:, :w]
    rows[:, :n] -= front.sigma[:w]
    lu, pivots, info = lapack.zgetrf(rows[:, :w], overwrite_a=True)
    if info > 0:
        raise LinAlgError("a layer is singular at this energy")
    x, _ = lapack.zgetrs(lu, pivots, rows[:, w:], overwrite_b=True)
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
    """

    def __init__(
        self,
        h: scipy.sparse.csr_array,
        s: scipy.sparse.csr_array,
        layers: Layers,
        meet: Sequence[int] | None = None,
    ) -> None:
        self.layers = layers
        starts = layers.meeting_layers() if meet is None else meet
        self.windows = [layers.window(layer) for layer in starts]
        mirror = slice(None, None, -1)
        self._left = _sweep(h, s, layers, max(w.start for w in self.windows))
        self._right = _sweep(
            h[mirror][:, mirror].conj(),
            s[mirror][:, mirror].conj(),
            layers.mirrored(),
            layers.n_layers - min(w.stop for w in self.windows),
        )
        spans = [self._span(window) for window in self.windows]
        self._meeting = [_dense(h, s, span, span) for span in spans]

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
        n_layers = self.layers.n_layers
        from_left = self._left.run(
            energy_ev, left.sigma, left.factor.conj().T, [w.start for w in self.windows]
        )
        from_right = self._right.run(
            energy_ev,
            right.sigma[::-1, ::-1].T,
            right.factor[::-1].T,
            [n_layers - w.stop for w in self.windows],
        )
        return np.array(
            [
                _meet(a.at(energy_ev), from_left[w.start], from_right[n_layers - w.stop])
                for a, w in zip(self._meeting, self.windows, strict=True)
            ]
        )


def _sweep(h: scipy.sparse.csr_array, s: scipy.sparse.csr_array, layers: Layers, n: int) -> _Sweep:
    edges, reach = layers.edges, layers.reach
    return _Sweep(
        layers,
        [_dense(h, s, slice(edges[i], edges[i + 1]), slice(edges[i], reach[i])) for i in range(n)],
    )


def _meet(a: ComplexArray, left: _Front, right: _Front) -> float:
    """||W_l^dagger G W_r||_F^2 in a window that holds both fronts: left first, right last."""
    n_left, n_right = len(left.sigma), len(right.sigma)
    a[:n_left, :n_left] -= left.sigma
    a[len(a) - n_right :, len(a) - n_right :] -= right.sigma[::-1, ::-1].T
    source = np.zeros((len(a), len(right.probe)), dtype=np.complex128, order="F")
    source[len(a) - n_right :] = right.probe[:, ::-1].T
    lu, pivots, info = lapack.zgetrf(a, overwrite_a=True)
    if info > 0:
        raise LinAlgError("the meeting window is singular at this energy")
    response, _ = lapack.zgetrs(lu, pivots, source, overwrite_b=True)
    amplitude = left.probe @ response[:n_left]
    return float(np.vdot(amplitude, amplitude).real)
