"""Errors of the eigenvalues around the Fermi level, and of the density of states.

H(k) c = ε S(k) c is solved with the reference S for both Hamiltonians. States are matched by their
absolute index, counted from the lowest: the n-th predicted state is compared with the n-th
reference state wherever it lies, so that states which a wrong H pushes out of the window, or into
it, count as the errors they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

from vcmbench.blocks import BlockMatrix
from vcmbench.errors import VcmbenchError
from vcmbench.scores.result import (
    Bounds,
    SpectrumErrors,
    SpectrumSection,
    Unavailable,
    available_cpus,
)
from vcmbench.scores.statistics import bootstrap
from vcmbench.structure import FloatArray
from vcmbench.units import MEV_PER_EV

WINDOW_EV: Final = (-2.0, 2.0)
"""States scored, relative to E_F (eV). Transport needs E_F ± 1 eV and, as tunnelling through the
oxide is set by the nearest states on either side, also the band edges of HfO2, which lie about
2 eV from the Fermi level of its contacts."""

BROADENING_EV: Final = 0.05
"""Standard deviation of the Gaussians of the density of states (eV)."""

DOS_MARGIN_EV: Final = 5 * BROADENING_EV
"""How far beyond the window states are broadened into it (eV)."""

DOS_STEP_EV: Final = 0.005
"""Grid of the density of states (eV): a tenth of the broadening."""

DENSE_LIMIT: Final = 4000
"""Up to so many orbitals all eigenvalues are computed by a dense solver."""

DENSE_MEMORY_BYTES: Final = 2 * 10**9
"""About how much memory the dense solves of several k-points at a time may take."""

SLICE_STATES: Final = 150
"""States found per shift of the shift-invert solver."""

SLICE_RESOLUTION_EV: Final = 1e-7
"""An interval this narrow (eV) is not cut further: its states are taken to be degenerate."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Consecutive eigenvalues at one k-point.

    Parameters
    ----------
    first : int
        Absolute index of the first one: how many eigenvalues lie below it.
    energies_ev : (n_levels,) float
        Eigenvalues in ascending order, eV.
    """

    first: int
    energies_ev: FloatArray

    def within(self, window_ev: tuple[float, float]) -> range:
        """Absolute indices of the eigenvalues in a window that the levels cover."""
        start, stop = np.searchsorted(self.energies_ev, window_ev, side="left").tolist()
        return range(self.first + start, self.first + stop)

    def at(self, indices: range) -> FloatArray:
        """Eigenvalues with the given absolute indices, eV."""
        start, stop = indices.start - self.first, indices.stop - self.first
        if start < 0 or stop > len(self.energies_ev):
            raise ValueError(f"levels {indices} are not among {len(self.energies_ev)} computed")
        return self.energies_ev[start:stop]


def matrix_levels(
    hamiltonian: scipy.sparse.sparray,
    overlap: scipy.sparse.sparray,
    window_ev: tuple[float, float] = WINDOW_EV,
    *,
    indices: range = range(0),
    dense_limit: int = DENSE_LIMIT,
) -> Levels:
    """Eigenvalues of H c = ε S c in a window, and those with given absolute indices.

    Parameters
    ----------
    hamiltonian, overlap : (n, n) sparse array
        Hermitian H(k) in eV and positive definite S(k).
    window_ev : (2,) float
        Window in eV.
    indices : range
        Absolute indices that are wanted as well.
    dense_limit : int
        Larger matrices are solved by shift-invert, in slices whose numbers of states are known
        from the inertia of H − σS (Sylvester), so that none is missed.

    Returns
    -------
    Levels
        An unbroken run with at least what was asked for; all of them for a dense matrix.

    Raises
    ------
    VcmbenchError
        If S is not positive definite.

    References
    ----------
    B. N. Parlett, The Symmetric Eigenvalue Problem (1998), sections 3.3 and 15.
    """
    if hamiltonian.shape[0] <= dense_limit:
        return Levels(0, _dense(hamiltonian, overlap))
    return _sliced(hamiltonian, overlap, window_ev, indices)


def device_levels(
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    kpoints: FloatArray,
    window_ev: tuple[float, float] = WINDOW_EV,
    *,
    matching: Sequence[Levels] | None = None,
    dense_limit: int = DENSE_LIMIT,
) -> list[Levels]:
    """Eigenvalues of a device at each k-point, several k-points at a time.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        H (eV) and the reference S.
    kpoints : (n_k, 3) float
        Fractional wave vectors.
    window_ev : (2,) float
        Window relative to the energy zero of H, eV; a margin for the density of states is added.
    matching : sequence of Levels, optional
        Levels of the reference: those with the indices of its states in the window are found,
        too. Needed for a prediction.
    dense_limit : int
        See `matrix_levels`.

    Returns
    -------
    list of Levels
        One per k-point.
    """
    wanted = [range(0)] * len(kpoints)
    if matching is not None:
        wanted = [levels.within(window_ev) for levels in matching]
    n_fitting = max(1, DENSE_MEMORY_BYTES // (8 * 16 * hamiltonian.pattern.n_orbitals**2))
    n_workers = min(len(kpoints), available_cpus(), n_fitting)

    def solve(k: FloatArray, indices: range) -> Levels:
        h, s = hamiltonian.to_csr(k), overlap.to_csr(k)
        return matrix_levels(h, s, _widened(window_ev), indices=indices, dense_limit=dense_limit)

    # One core per k-point: a tridiagonalisation waits for memory and hardly gains from a second
    # core, and its threads lose an order of magnitude to each other where the machine is busy.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(n_workers) as pool:
        return list(pool.map(solve, kpoints, wanted))


def _widened(window_ev: tuple[float, float]) -> tuple[float, float]:
    """Window with the margin that the density of states needs."""
    return window_ev[0] - DOS_MARGIN_EV, window_ev[1] + DOS_MARGIN_EV


def compare_levels(
    reference: Sequence[Levels],
    predicted: Sequence[Levels],
    weights: FloatArray,
    window_ev: tuple[float, float] = WINDOW_EV,
) -> SpectrumErrors | Unavailable:
    """Compare two spectra of one device.

    Parameters
    ----------
    reference, predicted : sequence of Levels
        One per k-point, as found by `device_levels`: they cover the window and its margin, and
        the predicted ones contain the indices of the reference's states in the window.
    weights : (n_k,) float
        Weights of the k-points.
    window_ev : (2,) float
        Window, eV.

    Returns
    -------
    SpectrumErrors or Unavailable
        Unavailable where the reference has no state in the window.
    """
    matched = [levels.within(window_ev) for levels in reference]
    if not any(matched):
        low, high = window_ev
        return Unavailable(reason=f"the reference has no state between {low:g} and {high:g} eV")
    errors = [
        theirs.at(indices) - ours.at(indices)
        for ours, theirs, indices in zip(reference, predicted, matched, strict=True)
    ]
    every = np.concatenate(errors)
    weight = np.repeat(np.asarray(weights, dtype=np.float64), [len(e) for e in errors])
    return SpectrumErrors(
        mae_mev=float(np.average(np.abs(every), weights=weight)) * MEV_PER_EV,
        mean_mev=float(np.average(every, weights=weight)) * MEV_PER_EV,
        largest_mev=float(np.abs(every).max()) * MEV_PER_EV,
        dos_distance=dos_distance(reference, predicted, weights, window_ev),
        n_states=len(every),
    )


def dos_distance(
    reference: Sequence[Levels],
    predicted: Sequence[Levels],
    weights: FloatArray,
    window_ev: tuple[float, float] = WINDOW_EV,
) -> float:
    """Relative L1 distance of densities of states, ∫|D' − D| dE / ∫D dE over the window.

    Each state is a Gaussian; those up to `DOS_MARGIN_EV` beyond the window reach into it. The
    distance is 0 for equal spectra and 2 for as many states in quite different places. The
    parameters are those of `compare_levels`.
    """
    edges = np.linspace(*window_ev, 1 + max(1, round(np.ptp(window_ev) / DOS_STEP_EV)))
    ours, theirs = (
        _states_per_cell(levels, weights, _widened(window_ev), edges)
        for levels in (reference, predicted)
    )
    return float(np.abs(theirs - ours).sum() / ours.sum())


def _states_per_cell(
    levels: Sequence[Levels],
    weights: FloatArray,
    window_ev: tuple[float, float],
    edges: FloatArray,
) -> FloatArray:
    """(n_cells,) weighted number of broadened states in each cell of the energy grid."""
    total = np.zeros(len(edges) - 1)
    for one, weight in zip(levels, weights, strict=True):
        energies = one.at(one.within(window_ev))
        cumulative = ndtr((edges[:, None] - energies) / BROADENING_EV).sum(axis=1)
        total += weight * np.diff(cumulative)
    return total


def score_devices(
    devices: Mapping[str, SpectrumErrors | Unavailable],
    window_ev: tuple[float, float] = WINDOW_EV,
) -> SpectrumSection | Unavailable:
    """Average over devices; unavailable where no device has a score."""
    scored = [errors for errors in devices.values() if isinstance(errors, SpectrumErrors)]
    if not scored:
        reasons = {e.reason for e in devices.values() if isinstance(e, Unavailable)}
        return Unavailable(reason="; ".join(sorted(reasons)) or "no devices")
    interval = bootstrap([errors.mae_mev for errors in scored])
    return SpectrumSection(
        mae_mev=float(np.mean([errors.mae_mev for errors in scored])),
        mean_mev=float(np.mean([errors.mean_mev for errors in scored])),
        largest_mev=max(errors.largest_mev for errors in scored),
        dos_distance=float(np.mean([errors.dos_distance for errors in scored])),
        n_states=sum(errors.n_states for errors in scored),
        window_ev=window_ev,
        broadening_ev=BROADENING_EV,
        bounds_mev=None if interval is None else Bounds(low=interval.low, high=interval.high),
        devices=dict(devices),
    )


def _dense(hamiltonian: scipy.sparse.sparray, overlap: scipy.sparse.sparray) -> FloatArray:
    """All eigenvalues, ascending."""
    try:
        factor = np.linalg.cholesky(overlap.toarray())
    except np.linalg.LinAlgError as error:
        raise VcmbenchError("overlap: S(k) is not positive definite") from error
    half = scipy.linalg.solve_triangular(
        factor, hamiltonian.toarray(), lower=True, check_finite=False
    )
    standard = scipy.linalg.solve_triangular(
        factor, half.conj().T, lower=True, overwrite_b=True, check_finite=False
    )
    # NumPy's solver, unlike SciPy's, lets other threads run.
    return np.linalg.eigvalsh(standard)


@dataclass(frozen=True, eq=False)
class _Shifted:
    """A factorised pencil H − σS.

    Parameters
    ----------
    shift_ev : float
        σ in eV.
    count : int
        Number of eigenvalues below σ.
    operator : LinearOperator
        Its inverse.
    """

    shift_ev: float
    count: int
    operator: scipy.sparse.linalg.LinearOperator


def _factorise(
    hamiltonian: scipy.sparse.sparray, overlap: scipy.sparse.sparray, shift_ev: float
) -> _Shifted:
    """L D L† of the pencil at, or where it is singular there just beside, an energy.

    SuperLU without pivoting factorises a Hermitian matrix into L (D L†): the diagonal of its U is
    real, and the number of negative elements is that of the eigenvalues below the shift. Where it
    had to pivot, or the factors do not reproduce the matrix, the shift is moved a little.
    """
    for attempt in range(8):
        shift = shift_ev + attempt * 10 * SLICE_RESOLUTION_EV
        pencil = (hamiltonian - shift * overlap).tocsc()
        try:
            factors = scipy.sparse.linalg.splu(
                pencil,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError:  # exactly singular
            continue
        if np.array_equal(factors.perm_r, factors.perm_c) and _reproduces(factors, pencil):
            count = int((factors.U.diagonal().real < 0).sum())
            inverse = scipy.sparse.linalg.LinearOperator(
                pencil.shape, matvec=factors.solve, dtype=pencil.dtype
            )
            return _Shifted(shift, count, inverse)
    raise VcmbenchError(f"spectrum: H − σS cannot be factorised stably near σ = {shift_ev:g} eV")


def _reproduces(factors: scipy.sparse.linalg.SuperLU, pencil: scipy.sparse.csc_array) -> bool:
    """Whether a solve with the factors has a small backward error."""
    x = np.random.default_rng(0).normal(size=pencil.shape[0]).astype(pencil.dtype)
    found = factors.solve(pencil @ x)
    scale = scipy.sparse.linalg.norm(pencil, np.inf) * np.abs(found).max()
    return bool(np.abs(pencil @ (found - x)).max() < 1e-10 * scale)


def _sliced(
    hamiltonian: scipy.sparse.sparray,
    overlap: scipy.sparse.sparray,
    window_ev: tuple[float, float],
    indices: range,
) -> Levels:
    """Eigenvalues in a window widened until it holds the wanted indices."""
    low, high = (_factorise(hamiltonian, overlap, edge) for edge in window_ev)
    step = window_ev[1] - window_ev[0]
    while indices and low.count > indices.start:
        low, step = _factorise(hamiltonian, overlap, low.shift_ev - step), 2 * step
    step = window_ev[1] - window_ev[0]
    while indices and high.count < indices.stop:
        high, step = _factorise(hamiltonian, overlap, high.shift_ev + step), 2 * step
    parts: list[FloatArray] = []
    pending = [(low, high)]
    while pending:
        left, right = pending.pop()
        found = _slice(hamiltonian, overlap, left, right)
        if found is not None:
            parts.append(found)
            continue
        middle = _factorise(hamiltonian, overlap, (left.shift_ev + right.shift_ev) / 2)
        pending += [(left, middle), (middle, right)]
    return Levels(low.count, np.sort(np.concatenate(parts)))


def _slice(
    hamiltonian: scipy.sparse.sparray,
    overlap: scipy.sparse.sparray,
    left: _Shifted,
    right: _Shifted,
) -> FloatArray | None:
    """All eigenvalues between two shifts; None where they are too many or not all were found."""
    n_states = right.count - left.count
    if n_states == 0:
        return np.zeros(0)
    if right.shift_ev - left.shift_ev < 100 * SLICE_RESOLUTION_EV:
        return np.full(n_states, (left.shift_ev + right.shift_ev) / 2)
    # Seen from the middle, every state inside is closer than any outside.
    if n_states > min(SLICE_STATES, hamiltonian.shape[0] - 2):
        return None
    middle = _factorise(hamiltonian, overlap, (left.shift_ev + right.shift_ev) / 2)
    try:
        energies = scipy.sparse.linalg.eigsh(
            hamiltonian,
            k=n_states,
            M=overlap,
            sigma=middle.shift_ev,
            OPinv=middle.operator,
            return_eigenvectors=False,
            ncv=min(hamiltonian.shape[0], 2 * n_states + 30),
        )
    except scipy.sparse.linalg.ArpackError:
        return None
    inside = (energies > left.shift_ev) & (energies < right.shift_ev)
    return np.asarray(energies) if inside.all() else None
