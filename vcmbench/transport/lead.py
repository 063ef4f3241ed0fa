"""Surfaces of a semi-infinite lead: self-energies, low-rank broadening and open channels.

Principal layers (PL) couple to their neighbours alone::

    ... PL -1  --A01->  PL 0  --A01->  PL 1 ...       A = E S - H,   A10 = A01^dagger

A lead to the left of PL 0 acts on it as Sigma = A10 g A01, one to the right as A01 g A10, with g
the surface Green's function at E + i eta. The coupling itself is at the real E: then
Gamma = i(Sigma - Sigma^dagger) is positive semidefinite for every eta, which then broadens nothing
but the lead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, qr

from vcmbench.blocks import BlockMatrix
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Structure
from vcmbench.transport.arrays import ComplexArray
from vcmbench.transport.negf import Contact

ETA_EV = 1e-8
"""Broadening of the leads; errors in T are linear in it."""

GAMMA_THRESHOLD = 1e-11
"""Eigenvalues of Gamma below this fraction of the largest entry of Sigma are dropped. Open channels
lie near 1, evanescent states that eta alone feeds at 1e-8 and below, rounding at 1e-15: T is that
of the whole Gamma to 1e-10, with a tenth of its columns."""

DENSE_DOUBLINGS = 2
"""Decimation steps on whole layers, before the chain is compressed."""

MAX_DOUBLINGS = 100
"""Decimation steps before giving up; each doubles the length, 25 to 40 are typical."""


class PrincipalLayer(NamedTuple):
    """Blocks of one principal layer (0) and to the next one (1): (n, n), H in eV."""

    h00: ComplexArray
    h01: ComplexArray
    s00: ComplexArray
    s01: ComplexArray


class LeadSurfaces(NamedTuple):
    """Both ends of a lead at one energy.

    Attributes
    ----------
    left, right : Contact
        Effect on one principal layer of the lead that continues to the left or to the right.
    channels : float
        Open channels, as the transmission of the infinite lead.
    negative_gamma : float
        Most negative eigenvalue of Gamma over the largest entry of Sigma: rounding only.
    """

    left: Contact
    right: Contact
    channels: float
    negative_gamma: float


def surfaces(
    layer: PrincipalLayer,
    energy_ev: float,
    eta_ev: float = ETA_EV,
    threshold: float = GAMMA_THRESHOLD,
) -> LeadSurfaces:
    """Solve both surfaces of a lead.

    Parameters
    ----------
    layer : PrincipalLayer
        The periodic lead.
    energy_ev : float
        Energy in the gauge of H.
    eta_ev : float
        Broadening of the lead.
    threshold : float
        Eigenvalue of Gamma, relative to Sigma, below which a column of its factor is dropped.

    Returns
    -------
    LeadSurfaces

    Raises
    ------
    LinAlgError
        If the decimation does not converge.
    """
    outward_left, outward_right = _decimate(layer, complex(energy_ev, eta_ev))
    a01 = energy_ev * layer.s01 - layer.h01
    a10 = a01.conj().T
    left, negative_left = _contact(a10 @ np.linalg.solve(outward_left, a01), threshold)
    right, negative_right = _contact(a01 @ np.linalg.solve(outward_right, a10), threshold)
    inverse = energy_ev * layer.s00 - layer.h00 - left.sigma - right.sigma
    amplitude = left.factor.conj().T @ np.linalg.solve(inverse, right.factor)
    channels = float(np.vdot(amplitude, amplitude).real)
    return LeadSurfaces(left, right, channels, max(negative_left, negative_right))


class Chain(NamedTuple):
    """Inverse Green's function of a layer by itself, and its couplings to both neighbours."""

    bulk: ComplexArray
    forward: ComplexArray
    backward: ComplexArray


class Shortened(NamedTuple):
    """Every fourth layer, and the ends of a lead to the left and to the right of one of them.

    `left` and `right` are a layer's inverse Green's functions with those of the lead's layers that
    are eliminated; the chain's next layer is still to be added.
    """

    chain: Chain
    left: ComplexArray
    right: ComplexArray


def shortened(layer: PrincipalLayer, z: complex) -> Shortened:
    """Double a lead's chain `DENSE_DOUBLINGS` times at the energy z in eV."""
    chain = Chain(
        z * layer.s00 - layer.h00,
        z * layer.s01 - layer.h01,
        z * layer.s01.conj().T - layer.h01.conj().T,
    )
    left, right = chain.bulk, chain.bulk
    for _ in range(DENSE_DOUBLINGS):
        chain, from_left, from_right = _double(chain)
        left, right = left - from_left, right - from_right
    return Shortened(chain, left, right)


def _decimate(layer: PrincipalLayer, z: complex) -> tuple[ComplexArray, ComplexArray]:
    """Inverse surface Green's functions of the leads to the left and to the right.

    Source: M. P. López Sancho, J. M. López Sancho, J. Rubio, J. Phys. F 15, 851 (1985).
    """
    chain, left, right = shortened(layer, z)
    scale = abs(z * layer.s01 - layer.h01).max()
    chain, columns, rows = _compress(chain, np.finfo(float).eps * scale)
    for _ in range(MAX_DOUBLINGS):
        chain, from_left, from_right = _double(chain)
        left = left - columns @ from_left @ rows
        right = right - columns @ from_right @ rows
        # The next correction is of second order in what is left of the couplings.
        if max(abs(chain.forward).max(), abs(chain.backward).max()) < 1e-10 * scale:
            return left, right
    raise LinAlgError(f"lead: decimation has not converged after {MAX_DOUBLINGS} doublings")


def _double(chain: Chain) -> tuple[Chain, ComplexArray, ComplexArray]:
    """Eliminate every other layer: the chain of those left, and what each side added to them."""
    bulk, forward, backward = chain
    n = len(bulk)
    both = np.linalg.solve(bulk, np.hstack([forward, backward]))
    to_next, to_previous = both[:, :n], both[:, n:]
    from_left, from_right = backward @ to_next, forward @ to_previous
    doubled = Chain(bulk - from_left - from_right, forward @ to_next, backward @ to_previous)
    return doubled, from_left, from_right


def _compress(chain: Chain, noise: float) -> tuple[Chain, ComplexArray, ComplexArray]:
    """Eliminate the part of each layer that takes no part in the couplings beyond `noise`.

    Few states reach over several layers, so couplings have low rank after some doublings, and
    their column and row spaces hold those of all later ones.

    Returns
    -------
    chain : Chain
        The smaller chain, (m, m).
    columns, rows : (n, m) and (m, n) complex
        A coupling c of the smaller chain is columns @ c @ rows of the larger one.
    """
    bulk, forward, backward = chain
    q_columns, r_columns, _ = qr(np.hstack([forward, backward]), pivoting=True)
    q_rows, r_rows, _ = qr(np.hstack([forward.conj().T, backward.conj().T]), pivoting=True)
    ranks = [np.count_nonzero(abs(np.diag(r)) > noise) for r in (r_columns, r_rows)]
    m = max(1, *ranks)
    turned = q_columns.conj().T @ bulk @ q_rows
    bulk = turned[:m, :m] - turned[:m, m:] @ np.linalg.solve(turned[m:, m:], turned[m:, :m])
    columns, rows = q_columns[:, :m], q_rows[:, :m].conj().T
    forward, backward = (columns.conj().T @ c @ rows.conj().T for c in (forward, backward))
    return Chain(bulk, forward, backward), columns, rows


def _contact(sigma: ComplexArray, threshold: float) -> tuple[Contact, float]:
    """Split a self-energy in its Hermitian part and the factor of Gamma."""
    scale = abs(sigma).max()
    hermitian = 0.5 * (sigma + sigma.conj().T)
    values, vectors = np.linalg.eigh(1j * (sigma - sigma.conj().T))
    kept = values > threshold * scale
    factor = vectors[:, kept] * np.sqrt(values[kept])
    return Contact(hermitian - 0.5j * factor @ factor.conj().T, factor), max(
        0.0, -values[0] / scale
    )


@dataclass(frozen=True, eq=False)
class Lead:
    """An ideal lead: the H and S of its bulk cell, in its own Fermi gauge.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        H (eV, relative to the lead's Fermi level) and S of one cell; x is the transport axis.
    """

    hamiltonian: BlockMatrix
    overlap: BlockMatrix

    def __post_init__(self) -> None:
        self.hamiltonian.pattern.require_same_sites(self.overlap.pattern)

    @property
    def structure(self) -> Structure:
        """Sites of the bulk cell."""
        return self.hamiltonian.pattern.structure

    @cached_property
    def range_cells(self) -> int:
        """Cells along x over which the lead couples: the thickness of a principal layer."""
        return max(int(np.abs(m.pattern.shift[:, 0]).max()) for m in self._matrices)

    @property
    def _matrices(self) -> tuple[BlockMatrix, BlockMatrix]:
        return self.hamiltonian, self.overlap

    @cached_property
    def digest(self) -> str:
        """Hash of everything that the surfaces depend on."""
        content = hashlib.sha256(self.hamiltonian.pattern.site_orbitals.tobytes())
        for matrix in self._matrices:
            for array in (matrix.pattern.pair, matrix.pattern.shift, matrix.values):
                content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    def principal_layer(self, q: NDArray[np.float64], n_cells: int) -> PrincipalLayer:
        """Blocks of a principal layer of `n_cells` cells at one in-plane wave vector.

        Parameters
        ----------
        q : (2,) float
            Fractional wave vector along y and z of the bulk cell.
        n_cells : int
            Cells along x per principal layer, cell by cell in ascending x.

        Raises
        ------
        VcmbenchError
            If the lead couples further than to the next principal layer.
        """
        if self.range_cells > n_cells:
            raise VcmbenchError(
                f"lead: found couplings over {self.range_cells} cells along x, expected at most "
                f"the {n_cells} cells of a device's contact"
            )
        blocks = []
        for matrix in self._matrices:
            by_shift = self._along_x(matrix, q)
            none = np.zeros_like(by_shift[0])
            blocks += [
                np.block(
                    [
                        [by_shift.get(offset + j - i, none) for j in range(n_cells)]
                        for i in range(n_cells)
                    ]
                )
                for offset in (0, n_cells)
            ]
        return PrincipalLayer(*blocks)

    def _along_x(self, matrix: BlockMatrix, q: NDArray[np.float64]) -> dict[int, ComplexArray]:
        """Dense blocks by shift along x, summed over y and z with phases exp(2 pi i q.R)."""
        both = matrix.directed()
        shift_x = both.pattern.shift[:, 0]
        return {
            int(x): both.select(shift_x == x).to_csr((0.0, *q)).toarray().astype(np.complex128)
            for x in np.unique(shift_x)
        }
