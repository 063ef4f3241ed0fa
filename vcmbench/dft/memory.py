"""Memory that a CP2K run will need, before it starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from vcmbench.dft.cp2k_input import Cp2kSettings
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Structure
from vcmbench.units import BOHR_ANG

_BYTES_PER_POINT_AND_VECTOR: Final = 50.0
"""Broyden history: old densities and residuals in reciprocal space, measured."""
_BYTES_PER_POINT: Final = 490.0
_BYTES_PER_ORBITAL: Final = 2.8e6
"""Tasks of the grid and real-space images of the matrices: neighbours of a site, measured."""
_BYTES_PER_ORBITAL_PAIR: Final = 130.0
"""Eight dense complex matrices of the diagonalisation."""
_BYTES_PER_RANK: Final = 60e6


def estimate_bytes(
    structure: Structure, settings: Cp2kSettings, n_orbitals: int, ranks: int
) -> float:
    """Peak memory of all ranks together.

    Parameters
    ----------
    structure : Structure
        Orthorhombic cell.
    settings : Cp2kSettings
        Cutoff and mixing history count.
    n_orbitals : int
        Dimension of the matrices.
    ranks : int
        MPI processes.

    Returns
    -------
    float
        Bytes; within a fifth of the runs it was fitted to.
    """
    points = grid_points(structure, settings.cutoff_ry)
    return (
        ranks * _BYTES_PER_RANK
        + points * _BYTES_PER_POINT
        + points * _BYTES_PER_POINT_AND_VECTOR * settings.mixing.n_vectors
        + n_orbitals * _BYTES_PER_ORBITAL
        + n_orbitals**2 * _BYTES_PER_ORBITAL_PAIR
    )


def grid_points(structure: Structure, cutoff_ry: float) -> int:
    """Points of the finest grid that a plane-wave cutoff (Ry) asks for."""
    spacing_ang = math.pi / math.sqrt(cutoff_ry) * BOHR_ANG
    return int(np.prod(np.ceil(np.diag(structure.cell) / spacing_ang)))


def available_bytes() -> float | None:
    """Memory that the system can still give, None where it does not say."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    for line in info.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return None


def require_memory(needed: float, source: str) -> None:
    """Raise an error if a run will not fit into the memory that is free."""
    available = available_bytes()
    if available is not None and needed > available:
        raise VcmbenchError(
            f"{source}: memory: the run needs about {needed / 2**30:.1f} GiB, found "
            f"{available / 2**30:.1f} GiB free: use fewer mixing vectors, a lower cutoff or "
            "another machine"
        )
