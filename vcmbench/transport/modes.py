"""Surfaces of a lead from its modes: open channels are counted, and nothing is broadened.

The layers that doubling leaves couple by a matrix of low rank, C = U V^dagger. What passes from
layer j to j + 1 is then all in a = V^dagger psi_{j+1} and b = U^dagger psi_j. With B the layer by
itself and M = [U V]^dagger B^-1 [U V], a mode multiplies (a, b) by lambda from one interface to the
next, and carries a flux::

    -M_UV b = lambda (M_UU a + b),   -a - M_VV b = lambda M_VU a,   i (a^dagger b - b^dagger a)

Modes with |lambda| < 1 decay to the right, those with |lambda| > 1 to the left; of the others the
sign of the flux, which is that of the group velocity, says where they go. What leaves through an
interface to the right is a = X b, and acts on layer j as Sigma = -U X U^dagger. Subspaces are taken
from the ordered Schur form instead of single vectors, as many modes decay within a layer.

Sources: T. Ando, Phys. Rev. B 44, 8017 (1991); M. Wimmer, thesis, Regensburg (2009), appendix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eig, lapack, qr, qz

from vcmbench.transport.arrays import ComplexArray
from vcmbench.transport.lead import LeadSurfaces, PrincipalLayer, shortened, surfaces
from vcmbench.transport.negf import Contact

UNIT_CIRCLE = 1e-7
"""Largest distance of |lambda| from 1 for a mode that propagates."""

RESIDUE = 1e-11
"""Largest error of Gamma, relative to Sigma, at which modes are trusted."""


def mode_surfaces(layer: PrincipalLayer, energy_ev: float) -> LeadSurfaces:
    """Solve both surfaces of a lead by its modes.

    Doubling loses digits within about 1e-5 eV of a level of the layers that it eliminates; the
    modes of single layers, 30 times as slow, are taken there. At the very edge of a band neither
    can be told apart to `RESIDUE`, and the surfaces are those of the decimation.

    Parameters
    ----------
    layer : PrincipalLayer
        The periodic lead.
    energy_ev : float
        Energy in the gauge of H.

    Returns
    -------
    LeadSurfaces
        Its `channels` is a whole number, and each factor of Gamma has as many columns.
    """
    for interface in (_between_long_layers, _between_layers):
        try:
            found = _surfaces(layer, energy_ev, interface(layer, energy_ev))
        except LinAlgError:
            continue
        if found.negative_gamma <= RESIDUE:
            return found
    return surfaces(layer, energy_ev)


class _Interface(NamedTuple):
    """Where a lead is cut, and how its modes get from one such place to the next.

    Attributes
    ----------
    left, right : (n, n) complex
        Inverse Green's function of a layer of a lead that goes on to the left or to the right,
        without what lies beyond the interface.
    u, v : (n, m) complex
        The coupling through an interface is u v^dagger.
    pencil : pair of (2 m, 2 m) complex
        The first times (a, b) is lambda times the second.
    """

    left: ComplexArray
    right: ComplexArray
    u: ComplexArray
    v: ComplexArray
    pencil: tuple[ComplexArray, ComplexArray]


def _between_long_layers(layer: PrincipalLayer, energy_ev: float) -> _Interface:
    """Interface between the layers that doubling leaves."""
    chain, left, right = shortened(layer, energy_ev)
    noise = np.finfo(float).eps * abs(energy_ev * layer.s01 - layer.h01).max()
    q, r, columns = qr(chain.forward, pivoting=True)
    m = max(1, int(np.count_nonzero(abs(np.diag(r)) > noise)))
    v = np.empty((len(q), m), dtype=np.complex128)
    v[columns] = r[:m].conj().T
    u = q[:, :m]
    ends = np.hstack([u, v])
    inside = ends.conj().T @ np.linalg.solve(chain.bulk, ends)
    inside = 0.5 * (inside + inside.conj().T)
    uu, uv, vu, vv = inside[:m, :m], inside[:m, m:], inside[m:, :m], inside[m:, m:]
    zero, one = np.zeros((m, m)), np.eye(m)
    pencil = np.block([[zero, -uv], [-one, -vv]]), np.block([[uu, one], [vu, zero]])
    return _Interface(left, right, u, v, pencil)


def _between_layers(layer: PrincipalLayer, energy_ev: float) -> _Interface:
    """Interface between the principal layers themselves: u = 1, so that b is psi, no inverse."""
    end = energy_ev * layer.s00 - layer.h00
    coupling = energy_ev * layer.s01 - layer.h01
    zero, one = np.zeros_like(end), np.eye(len(end), dtype=np.complex128)
    back = coupling.conj().T
    pencil = np.block([[zero, -back], [one, zero]]), np.block([[one, end], [zero, coupling]])
    return _Interface(end, end, one, back, pencil)


class _Outside(NamedTuple):
    """What lies beyond an interface: X with (outer amplitudes) = X (inner ones).

    `factor` is W with W W^dagger = -i (X - X^dagger), a column for each open channel.
    """

    response: ComplexArray
    factor: ComplexArray


def _surfaces(layer: PrincipalLayer, energy_ev: float, cut: _Interface) -> LeadSurfaces:
    onward = energy_ev * layer.s01 - layer.h01
    to_left, to_right = _outside(cut.pencil)
    left, left_residue = _contact(cut.left, cut.v, to_left, onward.conj().T)
    right, right_residue = _contact(cut.right, cut.u, to_right, onward)
    n_open = to_left.factor.shape[1]
    return LeadSurfaces(left, right, float(n_open), max(left_residue, right_residue))


def _outside(pencil: tuple[ComplexArray, ComplexArray]) -> tuple[_Outside, _Outside]:
    """Solve what lies to the left and to the right of an interface of the infinite chain."""
    schur = qz(*pencil, output="complex")
    alpha, beta = (abs(np.diag(part)) for part in schur[:2])
    propagates = abs(alpha - beta) < UNIT_CIRCLE * beta
    moving = _propagating(schur, propagates)
    n, n_open = len(alpha) // 2, moving.shape[1] // 2
    flux = -2 * np.sum(moving[:n].conj() * moving[n:], axis=0).imag
    leftward = np.hstack([_subspace(schur, ~propagates & (alpha > beta))[0], moving[:, flux < 0]])
    rightward = np.hstack([_subspace(schur, ~propagates & (alpha < beta))[0], moving[:, flux > 0]])
    return (
        _response(leftward[n:], leftward[:n], n_open),
        _response(rightward[:n], rightward[n:], n_open),
    )


def _subspace(
    schur: tuple[ComplexArray, ...], chosen: NDArray[np.bool_]
) -> tuple[ComplexArray, ComplexArray, ComplexArray]:
    """Orthonormal basis of the space of the chosen modes, and the pencil on it."""
    a, b, *_, z = lapack.ztgsen(chosen, *schur, ijob=0)[:6]
    n = np.count_nonzero(chosen)
    return z[:, :n], a[:n, :n], b[:n, :n]


def _propagating(schur: tuple[ComplexArray, ...], propagates: NDArray[np.bool_]) -> ComplexArray:
    """Modes that propagate, as columns."""
    basis, a, b = _subspace(schur, propagates)
    return basis @ eig(a, b)[1] if basis.shape[1] else basis


def _response(outer: ComplexArray, inner: ComplexArray, n_open: int) -> _Outside:
    """Outer amplitudes over inner ones, of outgoing modes (columns), the open channels last."""
    n, n_modes = outer.shape
    if n_modes != n:
        raise LinAlgError(f"lead: {n_modes} outgoing modes, expected {n}")
    channels = slice(n - n_open, None)
    half = outer[:, channels].conj().T @ inner[:, channels]
    source = np.zeros((n, n_open), dtype=np.complex128)
    source[channels] = np.linalg.cholesky(1j * (half - half.conj().T))
    inverse = np.linalg.inv(inner)
    return _Outside(outer @ inverse, inverse.conj().T @ source)


def _contact(
    end: ComplexArray, through: ComplexArray, outside: _Outside, onto: ComplexArray
) -> tuple[Contact, float]:
    """Self-energy of the lead on a further layer that it couples to by `onto`.

    Returns
    -------
    contact : Contact
    residue : float
        Largest entry of Gamma - W W^dagger over that of Sigma.
    """
    n = len(end)
    inverse = end + through @ outside.response @ through.conj().T
    sources = np.hstack([onto.conj().T, through @ outside.factor])
    both = onto @ np.linalg.solve(inverse, sources)
    sigma, factor = both[:, :n], both[:, n:]
    gamma = factor @ factor.conj().T
    residue = abs(1j * (sigma - sigma.conj().T) - gamma).max() / abs(sigma).max()
    return Contact(0.5 * (sigma + sigma.conj().T) - 0.5j * gamma, factor), float(residue)
