"""Memory of a run: estimated as measured, and asked for before CP2K starts."""

from __future__ import annotations

import numpy as np
import pytest

from vcmbench.build.metal import tin_cell
from vcmbench.dft import memory
from vcmbench.dft.cp2k_input import Cp2kSettings, Mixing
from vcmbench.dft.memory import available_bytes, estimate_bytes, grid_points, require_memory
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Structure

MIB = 2**20


def box(*sides: float) -> Structure:
    return Structure.create([7], [[0.0, 0.0, 0.0]], np.diag(sides))


def settings(cutoff_ry: float = 400.0, n_vectors: int = 10) -> Cp2kSettings:
    return Cp2kSettings(cutoff_ry=cutoff_ry, mixing=Mixing(n_vectors=n_vectors))


@pytest.mark.parametrize(
    ("sides", "cutoff_ry", "n_orbitals", "ranks", "n_vectors", "peak_mib"),
    [
        # "Estimated peak process memory" of one rank, CP2K 2023.1.
        ((46.81, 8.48, 8.48), 400, 2052, 2, 10, 5597),
        ((46.81, 8.48, 8.48), 400, 2052, 2, 12, 5887),
        ((46.29, 8.48, 8.48), 400, 2052, 2, 10, 5674),
        ((46.81, 8.48, 8.48), 300, 2052, 2, 10, 4941),
        ((52.95, 8.48, 8.48), 300, 2500, 2, 10, 5932),
        ((4.24, 4.24, 4.24), 400, 56, 1, 8, 273),
        ((4.24, 4.24, 4.24), 400, 56, 2, 10, 210),
    ],
)
def test_estimate_is_within_a_fifth_of_what_was_measured(
    sides, cutoff_ry, n_orbitals, ranks, n_vectors, peak_mib
):
    needed = estimate_bytes(
        box(*sides), settings(cutoff_ry, n_vectors=n_vectors), n_orbitals, ranks
    )
    assert needed / ranks / MIB == pytest.approx(peak_mib, rel=0.2)


def test_estimate_grows_with_everything_that_costs_memory():
    def needed(structure=None, cutoff_ry=400.0, n_vectors=10, n_orbitals=500, ranks=2):
        return estimate_bytes(
            structure or tin_cell(), settings(cutoff_ry, n_vectors), n_orbitals, ranks
        )

    assert needed(cutoff_ry=500) > needed()
    assert needed(n_vectors=11) > needed()
    assert needed(n_orbitals=501) > needed()
    assert needed(ranks=3) > needed()
    assert needed(box(4.24, 4.24, 8.48)) > needed()


def test_grid_has_the_points_that_the_cutoff_asks_for():
    """E = (π/h)²/2 Hartree = (π/h)² Ry for a spacing h in bohr."""
    bohr_ang = 0.529177210903
    side = 40 * bohr_ang * np.pi / np.sqrt(400)
    assert grid_points(box(side * 0.999, side * 0.999, 2 * side * 0.999), 400.0) == 40 * 40 * 80


def test_a_run_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 3.5 * 2**30)
    require_memory(3.4 * 2**30, "s1-v0")
    with pytest.raises(
        VcmbenchError, match=r"^s1-v0: memory: the run needs about 10\.0 GiB, found 3\.5 GiB free"
    ):
        require_memory(10 * 2**30, "s1-v0")
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    require_memory(1e18, "s1-v0")


def test_free_memory_is_that_of_this_machine():
    available = available_bytes()
    assert available is None or 1e7 < available < 1e15
