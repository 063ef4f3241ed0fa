"""What a sweep will take, before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas
from threadpoolctl import threadpool_limits

from vcmbench.structure import FloatArray
from vcmbench.transport.sweep import TransmissionSolver

SWEEP_EFFICIENCY = 0.5
"""Share of the zgemm rate that a sweep reaches; measured on a device of 294 sites."""

FRONT_COPIES = 4
"""Matrices as large as a front that one point holds at a time."""

_PROBE = 384
_COMPLEX_BYTES = 16


class Estimate(NamedTuple):
    """Cost of T on a grid.

    Attributes
    ----------
    n_points : int
        (k, E) to solve.
    n_surfaces : int
        Lead surfaces that are not cached yet.
    gflop_per_point : float
        Work on the device, 1e9 real operations.
    seconds : float
        Wall time on all threads.
    memory_bytes : int
        Dense parts of H and S, and fronts of all threads.
    """

    n_points: int
    n_surfaces: int
    gflop_per_point: float
    seconds: float
    memory_bytes: int


def estimate(
    solver: TransmissionSolver, energies_ev: FloatArray, kpoints: FloatArray, threads: int
) -> Estimate:
    """Estimate the cost of a sweep.

    Parameters
    ----------
    solver : TransmissionSolver
        The device and its lead; one of the missing surfaces is computed, and kept.
    energies_ev : (n_energies,) float
        Energies.
    kpoints : (n_k, 3) float
        Fractional wave vectors.
    threads : int
        Points solved at a time.
    """
    layers = solver.layers_at(kpoints[0])
    missing = {
        (*np.round(q, 12).tolist(), float(energy))
        for k in kpoints
        for q in solver.wave_vectors(k)
        for energy in energies_ev
        if not solver.cache.holds(q, float(energy))
    }
    n_points = len(kpoints) * len(energies_ev)
    with threadpool_limits(1, "blas"):
        sweeps = n_points * layers.flops_per_energy / (SWEEP_EFFICIENCY * zgemm_flops())
        leads = len(missing) * (_surface_seconds(solver, *min(missing)) if missing else 0.0)
    return Estimate(
        n_points=n_points,
        n_surfaces=len(missing),
        gflop_per_point=layers.flops_per_energy / 1e9,
        seconds=(sweeps + leads) / threads,
        memory_bytes=_COMPLEX_BYTES
        * (2 * layers.matrix_entries + threads * FRONT_COPIES * layers.largest_front**2),
    )


def zgemm_flops() -> float:
    """Real operations per second of complex matrix products in one thread."""
    a = np.ones((_PROBE, _PROBE), dtype=np.complex128, order="F")
    best = min(_seconds(lambda: blas.zgemm(1.0, a, a)) for _ in range(4))
    return 8 * _PROBE**3 / best


def _surface_seconds(solver: TransmissionSolver, q_y: float, q_z: float, energy: float) -> float:
    return _seconds(lambda: solver.cache.surfaces(np.array([q_y, q_z]), energy))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
