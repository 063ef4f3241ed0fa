"""From a code's raw operators to a checked device: what all importers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import Device, Gauge, Kind, Provenance
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.importers import checks
from vcmbench.importers.checks import Check, Limits
from vcmbench.importers.entries import Assembled
from vcmbench.structure import FloatArray, Structure

_CP2K_LIMITS: Final = Limits()


@dataclass(frozen=True, eq=False)
class ImportedRun:
    """An imported run.

    Parameters
    ----------
    device : Device
        H and S on every pair of sites within the support, absent entries zero.
    raw_hamiltonian, raw_overlap : BlockMatrix
        All blocks that the code printed, each operator on its own pattern, in the device's gauge
        and units; what lies beyond the support is only here.
    checks : tuple of Check
        What was checked and measured; all passed.
    """

    device: Device
    raw_hamiltonian: BlockMatrix
    raw_overlap: BlockMatrix
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Bands:
    """What the electron count needs: the run's k-mesh, smearing and electrons.

    Parameters
    ----------
    kpoints : (n_k, 3) float
        Fractional wave vectors.
    weights : (n_k,) float
        Weights, summing to one.
    temperature_k : float
        Fermi–Dirac temperature.
    n_electrons : int
        Valence electrons.
    printed_ev : sequence of (n,) float
        Eigenvalues that the code printed at `kpoints`, relative to the Fermi level; or empty.
    """

    kpoints: FloatArray
    weights: FloatArray
    temperature_k: float
    n_electrons: int
    printed_ev: Sequence[FloatArray] = ()


def matrix_checks(
    hamiltonian: Assembled,
    overlap: Assembled,
    *,
    mixed_images: bool,
    limits: Limits = _CP2K_LIMITS,
) -> list[Check]:
    """Check everything that needs no eigenvalues.

    Parameters
    ----------
    hamiltonian, overlap : Assembled
        As printed, in any unit.
    mixed_images : bool
        Whether images are summed within the support (`refuse_short_cell`), so that a block says
        nothing of its distance.
    limits : Limits
        What the code's accuracy allows.
    """
    h, s = hamiltonian.matrix, overlap.matrix
    hermitian = [
        checks.hermiticity("H", hamiltonian.residual, limits.hermitian),
        checks.hermiticity("S", overlap.residual, limits.hermitian),
    ]
    if mixed_images:
        reason = "images are summed in a cell shorter than twice the support"
        return [*hermitian, checks.skipped("S by distance", reason)]
    return [
        *hermitian,
        checks.unit_diagonal(s, limits.overlap),
        checks.close_pairs("H", h, limits.close_ang),
        checks.close_pairs("S", s, limits.close_ang),
        *checks.overlap_decay(s),
        *checks.two_centre(s, limits.overlap),
    ]


def band_checks(
    hamiltonian: BlockMatrix, overlap: BlockMatrix, bands: Bands | None, reason: str
) -> list[Check]:
    """Check the eigenvalues of a matrix in the Fermi gauge against the run's electrons.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        All blocks printed; H − E_F·S in eV.
    bands : Bands or None
        The run's own sampling; None to skip, for `reason`.
    """
    name = "electrons below the Fermi level"
    if bands is None:
        return [checks.skipped(name, reason)]
    n = hamiltonian.pattern.n_orbitals
    if n > checks.DENSE_LIMIT:
        return [checks.skipped(name, f"{n} orbitals, more than {checks.DENSE_LIMIT}")]
    levels = [checks.eigenvalues(hamiltonian, overlap, k) for k in bands.kpoints]
    results = [checks.electron_count(levels, bands.weights, bands.temperature_k, bands.n_electrons)]
    if bands.printed_ev:
        results.append(checks.printed_eigenvalues(levels, bands.printed_ev))
    return results


def to_device(
    *,
    device_id: str,
    kind: Kind,
    gauge: Gauge,
    folded: bool,
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    provenance: Provenance,
    support_ang: float,
) -> Device:
    """Bring both operators onto every pair of sites within the support."""
    pattern = BlockPattern.from_structure(
        hamiltonian.pattern.structure, hamiltonian.pattern.basis, support_ang
    )
    return Device(
        id=device_id,
        kind=kind,
        gauge=gauge,
        folded=folded,
        hamiltonian=hamiltonian.align(pattern),
        overlap=overlap.align(pattern),
        provenance=provenance,
    )


def fermi_gauge(
    hamiltonian: BlockMatrix, overlap: BlockMatrix, fermi_energy_ev: float
) -> BlockMatrix:
    """H − E_F·S on the union of both patterns."""
    pattern = union(hamiltonian.pattern, overlap.pattern)
    return hamiltonian.align(pattern) - fermi_energy_ev * overlap.align(pattern)


def union(first: BlockPattern, second: BlockPattern) -> BlockPattern:
    """Pattern with the blocks of both."""
    extra = ~first.locate(second).found
    if not extra.any():
        return first
    return BlockPattern.from_unsorted(
        first.structure,
        first.basis,
        np.concatenate([first.pair, second.pair[extra]]),
        np.concatenate([first.shift, second.shift[extra]]),
    )


def shortest_side(structure: Structure) -> float:
    """Smallest distance of two opposite periodic faces of the cell, Å."""
    heights = 1 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
    return float(np.min(heights[structure.pbc], initial=np.inf))


def refuse_short_cell(
    source: str, structure: Structure, support_ang: float, *, allow_folded: bool
) -> bool:
    """Whether a folded matrix mixes images within the support; an error unless allowed."""
    side = shortest_side(structure)
    if side >= 2 * support_ang:
        return False
    if not allow_folded:
        raise bad_input(
            source,
            "cell",
            found=f"a side of {side:.2f} Å in a folded (Γ-only) matrix",
            expected=f"at least {2 * support_ang:g} Å, twice the range: images of a pair cannot "
            "be told apart (allow_folded takes the nearest)",
        )
    return True


def checked_id(device_id: str | None, folder_name: str) -> str:
    """Id given, or the folder's name."""
    name = device_id or folder_name
    if not name or "/" in name:
        raise VcmbenchError(f"device id: found {name!r}, expected a name without '/'")
    return name
