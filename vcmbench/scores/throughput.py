"""Throughput: from positions in host memory to the predicted H in host memory.

What is timed is the delivery of H in one declared layout, half stored, in float32, up to 8 Å (and
once more for the whole support), not a forward pass. Every repetition gets other positions, so
that nothing can be kept from the one before; repetitions count once their times are stable and the
accelerator has finished (`vcmbench.scores.timing`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from vcmbench.blocks import BlockMatrix
from vcmbench.board import Board
from vcmbench.device import HEADLINE_CUTOFF_ANG, SUPPORT_ANG
from vcmbench.machine import (
    allowed_threads,
    peak_memory_bytes,
    processor_name,
    reset_peak_memory,
    return_free_memory,
)
from vcmbench.scores.result import (
    Equivariance,
    ThroughputGates,
    ThroughputSection,
    Timing,
    Unavailable,
)
from vcmbench.scores.timing import (
    MAX_WARMUP,
    REPEATS,
    Model,
    Stopwatch,
    Timed,
    count,
    deliver,
    jittered,
    median_stages,
    repeat,
    timing,
    warm_up,
)

Accelerator = Literal["cpu", "cuda"]

ACCURACY_TOLERANCE: Final = 0.01
"""Largest relative difference of the MAE of the timed code from the scored one."""

ACCURACY_FLOOR_MEV: Final = 1e-3
"""Differences of the MAE below this (meV) are rounding: the timed layout is float32."""

EQUIVARIANCE_LIMIT: Final = 1e-4
"""Largest relative equivariance residual of a model whose throughput counts."""


def measure(
    model: Model,
    device: str,
    reference: BlockMatrix,
    *,
    scored_mae_mev: float,
    equivariance: Equivariance | Unavailable,
    accelerator: Accelerator = "cpu",
    threads: int | None = None,
    repeats: int = REPEATS,
    max_warmup: int = MAX_WARMUP,
    seed: int = 0,
) -> ThroughputSection:
    """Measure the throughput of a model on one device.

    Parameters
    ----------
    model : Model
        The model that was scored, with the same weights and settings.
    device : str
        Device id.
    reference : BlockMatrix
        Reference H of the device: it gives the structure, and what is counted per second.
    scored_mae_mev : float
        MAE that this device scored, closer than 8 Å, meV.
    equivariance : Equivariance or Unavailable
        Residuals of the model.
    accelerator : {"cpu", "cuda"}
        What computes; with "cuda" the model must have imported torch.
    threads : int, optional
        Threads of BLAS, OpenMP and torch; unless given, as many as BLAS and OpenMP would take,
        which respects ``OMP_NUM_THREADS``.
    repeats, max_warmup : int
        Timed predictions and largest number of predictions before them.
    seed : int
        Seed of the displacements.

    Returns
    -------
    ThroughputSection

    Raises
    ------
    VcmbenchError
        If a CUDA accelerator is asked for that torch does not see.
    """
    board = Board.find() if accelerator == "cuda" else None
    n_threads = threads or allowed_threads()
    structures = jittered(reference.pattern.structure, seed)
    watch = Stopwatch(model, board.synchronise) if board is not None else Stopwatch(model)

    def predictions(cutoff_ang: float) -> tuple[list[float], list[Timed], Timing]:
        def once() -> Timed:
            return watch.time(next(structures), cutoff_ang)

        warmup_s = warm_up(once, most=max_warmup)
        timed = repeat(once, fewest=repeats, most=repeats)
        return warmup_s, timed, timing(warmup_s, timed, count(reference, cutoff_ang), cutoff_ang)

    with pinned(n_threads):
        return_free_memory()
        reset_peak_memory()
        before = peak_memory_bytes()
        if board is not None:
            board.reset_peak()
        warmup_s, timed, near = predictions(HEADLINE_CUTOFF_ANG)
        peak = peak_memory_bytes() - before if board is None else board.peak_bytes()
        _, _, full = predictions(SUPPORT_ANG)
        mae_mev = near_mae_mev(reference, deliver_matrix(model, reference, HEADLINE_CUTOFF_ANG))
    passed = gates(mae_mev, scored_mae_mev, equivariance)
    counted = count(reference, HEADLINE_CUTOFF_ANG)
    return ThroughputSection(
        accelerator=accelerator,
        accelerator_name=processor_name() if board is None else board.name,
        threads=n_threads,
        device=device,
        n_sites=counted.sites,
        n_edges=counted.edges,
        n_nonzeros=counted.nonzeros,
        atoms_per_s=near.atoms_per_s,
        edges_per_s=near.edges_per_s,
        nonzeros_per_s=near.nonzeros_per_s,
        peak_memory_bytes=max(0, peak),
        peak_memory_kind="resident increment" if board is None else "cuda allocator",
        cold_start_s=warmup_s[0],
        near=near,
        full=full,
        stages_s=median_stages(timed),
        gates=passed,
        counts=passed.passed,
    )


def deliver_matrix(model: Model, reference: BlockMatrix, cutoff_ang: float) -> BlockMatrix:
    """Operator that the timed code delivers for the structure of a reference."""
    pattern = reference.pattern
    found = deliver(model, pattern.structure, cutoff_ang)
    return found.matrix(pattern.structure, pattern.basis)


def near_mae_mev(reference: BlockMatrix, predicted: BlockMatrix) -> float:
    """MAE over the directed entries of blocks closer than 8 Å, meV.

    Parameters
    ----------
    reference : BlockMatrix
        Half stored, on the whole support.
    predicted : BlockMatrix
        Half stored; blocks that it lacks count as zero, others are ignored.
    """
    near = reference.truncate(HEADLINE_CUTOFF_ANG)
    weight = np.repeat(near.pattern.weight, np.diff(near.pattern.offset))
    difference = np.abs(predicted.align(near.pattern).values - near.values)
    return float(1e3 * (weight @ difference) / weight.sum())


def gates(
    mae_mev: float, scored_mae_mev: float, equivariance: Equivariance | Unavailable
) -> ThroughputGates:
    """Check accuracy and symmetry of the timed code.

    Parameters
    ----------
    mae_mev : float
        What it delivered scores, meV.
    scored_mae_mev : float
        What the model scored, meV.
    equivariance : Equivariance or Unavailable
        Residuals of the model.
    """
    residual = equivariance.largest if isinstance(equivariance, Equivariance) else None
    tolerance = max(ACCURACY_TOLERANCE * scored_mae_mev, ACCURACY_FLOOR_MEV)
    return ThroughputGates(
        mae_mev=mae_mev,
        accuracy=abs(mae_mev - scored_mae_mev) <= tolerance,
        equivariance_residual=residual,
        equivariance=residual is not None and residual < EQUIVARIANCE_LIMIT,
    )


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Limit the threads of every library that is loaded."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    with threadpool_limits(threads):
        if torch is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
