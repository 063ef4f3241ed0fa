"""Checks that every importer makes, with what they measured.

A wrong image, orbital order or run leaves most single tests untouched (every eigenvalue, for
instance, is the same with wrong images), so several independent ones stand together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from scipy.special import expit

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.harmonics import bond_frames, rotate_blocks
from vcmbench.structure import FloatArray
from vcmbench.units import BOLTZMANN_EV_PER_K

DECAY_LIMITS: Final = ((6.0, 0.15), (8.0, 0.05), (10.0, 1e-2), (12.0, 1e-3))
"""Largest |S| allowed beyond a distance (Å): several times that of MOLOPT-SR bases (1.8e-2,
8.7e-4, 1.1e-5, ...), far below the 0.3 that a wrong image shows at any distance."""
TWO_CENTRE_RANGE_ANG: Final = 8.0
STEEPEST_OVERLAP_PER_ANG: Final = 2.0
"""No overlap of two normalised valence orbitals changes faster with distance."""
POSITIVE_LIMIT: Final = 1e-6
POSITIVE_SAMPLES: Final = 4
INVERSE_ITERATIONS: Final = 25
ELECTRON_LIMIT: Final = 1e-5
"""Relative error of the electron count."""
EIGENVALUE_LIMIT_EV: Final = 1e-4
"""CP2K prints eigenvalues to 1e-6 Hartree."""
DENSE_LIMIT: Final = 6000
"""Largest dimension for dense eigenvalues (10 GB and an hour at 18,000)."""


@dataclass(frozen=True)
class Limits:
    """What a code's own accuracy allows.

    Parameters
    ----------
    hermitian : float
        |M(R) - M(-R)ᵀ|, in the code's unit.
    overlap : float
        Error of an entry of S.
    close_ang : float
        Every pair closer than this must have a block in H and in S, Å.
    """

    hermitian: float = 1e-9
    overlap: float = 1e-5
    close_ang: float = 6.0


@dataclass(frozen=True)
class Check:
    """One check.

    Parameters
    ----------
    name : str
        What was checked.
    value : float or str
        What was measured.
    expected : str
        What is allowed.
    passed : bool or None
        None where the check could not be made; `value` says why.
    """

    name: str
    value: float | str
    expected: str
    passed: bool | None


def require(source: str, checks: Iterable[Check]) -> None:
    """Raise an error that lists the checks that failed."""
    failed = [check for check in checks if check.passed is False]
    if failed:
        raise VcmbenchError(
            "\n".join(
                f"{source}: {check.name}: found {_format(check.value)}, expected {check.expected}"
                for check in failed
            )
        )


def _format(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def skipped(name: str, reason: str, expected: str = "") -> Check:
    """Record a check that could not be made."""
    return Check(name, reason, expected, None)


def _at_most(name: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(name, float(value), f"at most {limit:g}{unit}", bool(value <= limit))


def hermiticity(operator: str, residual: float, limit: float) -> Check:
    """Check |M(R) - M(-R)ᵀ| over the entries that the code printed in both directions."""
    return _at_most(f"{operator} Hermitian, max |M(R) - M(-R)^T|", residual, limit)


def dimension(overlap: BlockMatrix) -> Check:
    """Check that S has a diagonal entry for every orbital: that it is as large as the basis."""
    found, expected = int((_diagonal(overlap) != 0).sum()), overlap.pattern.n_orbitals
    return Check("orbitals in S", found, str(expected), found == expected)


def unit_diagonal(overlap: BlockMatrix, limit: float) -> Check:
    """Check that every orbital is normalised."""
    error = np.abs(_diagonal(overlap) - 1).max(initial=0.0)
    return _at_most("S has a unit diagonal, max |S_aa - 1|", error, limit)


def _diagonal(matrix: BlockMatrix) -> FloatArray:
    """Diagonal entries of the on-site blocks that are there."""
    pattern = matrix.pattern
    diagonals = [
        np.diagonal(matrix.slab(slab), axis1=1, axis2=2)[pattern.is_onsite[slab.blocks]].ravel()
        for slab in pattern.slabs
        if slab.species_i == slab.species_j
    ]
    return np.concatenate([*diagonals, np.empty(0)])


def decay_table(matrix: BlockMatrix, edges_ang: Sequence[float]) -> FloatArray:
    """Largest |entry| by distance.

    Parameters
    ----------
    matrix : BlockMatrix
        Any operator.
    edges_ang : (n + 1,) float
        Ascending distances, Å.

    Returns
    -------
    (n,) float
        Largest |entry| of the blocks with edges[a] <= distance < edges[a + 1]; 0 where none is.
    """
    largest = block_maxima(matrix)
    shell = np.digitize(matrix.pattern.distance, edges_ang) - 1
    table = np.zeros(len(edges_ang) - 1)
    inside = (shell >= 0) & (shell < len(table))
    np.maximum.at(table, shell[inside], largest[inside])
    return table


def block_maxima(matrix: BlockMatrix) -> FloatArray:
    """(n_blocks,) largest |entry| of each block."""
    if not matrix.pattern.n_blocks:
        return np.empty(0)
    return np.maximum.reduceat(np.abs(matrix.values), matrix.pattern.offset[:-1])


def overlap_decay(overlap: BlockMatrix) -> list[Check]:
    """Check that S decays with distance: wrong images put large overlaps far apart."""
    starts = [start for start, _ in DECAY_LIMITS]
    table = decay_table(overlap, [*starts, np.inf])
    return [
        _at_most(f"max |S| beyond {start:g} Å", table[n:].max(), limit)
        for n, (start, limit) in enumerate(DECAY_LIMITS)
    ]


def close_pairs(operator: str, matrix: BlockMatrix, close_ang: float) -> Check:
    """Check that no pair of close sites lacks a block, as it does in truncated files."""
    near = BlockPattern.from_structure(matrix.pattern.structure, matrix.pattern.basis, close_ang)
    missing = int((~matrix.pattern.locate(near).found).sum())
    return _at_most(f"{operator}: pairs within {close_ang:g} Å without a block", missing, 0)


def two_centre(overlap: BlockMatrix, limit: float) -> list[Check]:
    """Check that each S block depends on the species and the distance vector alone.

    In the frame of the bond the overlap of two orbitals vanishes unless their m agree, which
    tests the direction, the orbital order and the phases; what remains is a function of the
    distance, which is compared between pairs of almost equal distance.

    Parameters
    ----------
    overlap : BlockMatrix
        S, each image apart.
    limit : float
        Accuracy of its entries.
    """
    pattern = overlap.pattern
    relevant = (pattern.distance < TWO_CENTRE_RANGE_ANG) | (block_maxima(overlap) > 1e-4)
    chosen = overlap.select(relevant & (pattern.distance > 1e-3))
    selection, jump = 0.0, 0.0
    for slab in chosen.pattern.slabs:
        shells_i, shells_j = (
            chosen.pattern.basis.shells_of(s) for s in (slab.species_i, slab.species_j)
        )
        to_frame = np.swapaxes(bond_frames(chosen.pattern.vector[slab.blocks]), 1, 2)
        blocks = rotate_blocks(chosen.slab(slab), shells_i, shells_j, to_frame)
        allowed = _magnetic(shells_i)[:, None] == _magnetic(shells_j)
        selection = max(selection, np.abs(blocks[:, ~allowed]).max(initial=0.0))
        distance = chosen.pattern.distance[slab.blocks]
        order = np.argsort(distance, kind="stable")
        change = np.abs(np.diff(blocks[order][:, allowed], axis=0)).max(axis=1, initial=0.0)
        excess = change - STEEPEST_OVERLAP_PER_ANG * np.diff(distance[order])
        jump = max(jump, excess.max(initial=0.0))
    return [
        _at_most("S in the bond frame, max |S| where m differ", selection, limit),
        _at_most("S a function of distance, largest jump", jump, limit),
    ]


def _magnetic(shells: Sequence[int]) -> np.ndarray:
    return np.concatenate([np.arange(-l, l + 1) for l in shells])


def positive_definite(overlap: BlockMatrix, kpoints: FloatArray) -> Check:
    """Check that S(k) is positive definite, by its smallest eigenvalue.

    Parameters
    ----------
    overlap : BlockMatrix
        S.
    kpoints : (n_k, 3) float
        Wave vectors to choose from; at most `POSITIVE_SAMPLES` are taken.
    """
    sample = kpoints[:: max(1, len(kpoints) // POSITIVE_SAMPLES)][:POSITIVE_SAMPLES]
    smallest = min(_smallest_eigenvalue(overlap.to_csr(k)) for k in sample)
    return Check(
        f"S(k) positive definite at {len(sample)} k, smallest eigenvalue",
        smallest if np.isfinite(smallest) else "a negative one",
        f"at least {POSITIVE_LIMIT:g}",
        smallest >= POSITIVE_LIMIT,
    )


def _smallest_eigenvalue(matrix: scipy.sparse.csr_array) -> float:
    """Smallest eigenvalue to about a percent, or minus infinity where it is negative."""
    n = matrix.shape[0]
    vector = np.random.default_rng(0).normal(size=n).astype(matrix.dtype)
    if n > DENSE_LIMIT:
        return float(
            scipy.sparse.linalg.eigsh(
                matrix, k=1, which="SA", tol=1e-3, v0=vector, return_eigenvectors=False
            )[0]
        )
    try:
        factor = scipy.linalg.cho_factor(matrix.toarray(), overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return -np.inf
    # Inverse iteration: cheap once S is factorised.
    for _ in range(INVERSE_ITERATIONS):
        vector = scipy.linalg.cho_solve(factor, vector / np.linalg.norm(vector), check_finite=False)
    return float(1 / np.linalg.norm(vector))


def eigenvalues(hamiltonian: BlockMatrix, overlap: BlockMatrix, kpoint: FloatArray) -> FloatArray:
    """(n_orbitals,) eigenvalues of H(k) c = e S(k) c, dense."""
    h, s = (matrix.to_csr(kpoint).toarray() for matrix in (hamiltonian, overlap))
    try:
        return scipy.linalg.eigh(
            h, s, eigvals_only=True, overwrite_a=True, overwrite_b=True, check_finite=False
        )
    except scipy.linalg.LinAlgError as error:
        raise VcmbenchError(
            f"eigenvalues at k = {kpoint.tolist()}: S(k) is not positive definite ({error})"
        ) from error


def electron_count(
    bands_ev: Sequence[FloatArray],
    weights: FloatArray,
    temperature_k: float,
    expected: int,
) -> Check:
    """Compare the electrons in the bands with those of the run.

    Parameters
    ----------
    bands_ev : sequence of (n_orbitals,) float
        Eigenvalues relative to the Fermi level at each k-point of the run.
    weights : (n_k,) float
        Weights, summing to one.
    temperature_k : float
        Fermi–Dirac temperature of the run.
    expected : int
        Valence electrons.
    """
    thermal_ev = max(BOLTZMANN_EV_PER_K * temperature_k, 1e-12)
    counts = [2 * expit(-energies / thermal_ev).sum() for energies in bands_ev]
    found = float(weights @ np.array(counts))
    return Check(
        "electrons below the Fermi level",
        f"{found:.7f}",
        f"{expected} ± {ELECTRON_LIMIT * expected:.1g}",
        abs(found - expected) <= ELECTRON_LIMIT * expected,
    )


def printed_eigenvalues(bands_ev: Sequence[FloatArray], printed_ev: Sequence[FloatArray]) -> Check:
    """Compare eigenvalues with those that the code printed, both at the same k-points."""
    error = max(
        float(np.abs(found[: len(printed)] - printed).max())
        for found, printed in zip(bands_ev, printed_ev, strict=True)
    )
    return _at_most("eigenvalues printed in the log, max error", error, EIGENVALUE_LIMIT_EV, " eV")
