"""Throughput: from positions in host memory to the predicted H in host memory.

What is timed is the delivery of H in one declared layout, half stored, in float32, up to 8 Å (and
once more for the whole support), not a forward pass. Every repetition gets other positions, so
that nothing can be kept from the one before; repetitions count once their times are stable and the
accelerator has finished.

A model may offer two methods besides `predict`: ``predict_within(structure, cutoff_ang)``, which
may leave out blocks beyond a cutoff and is then what is timed, and ``stage_seconds()``, the time
that each stage of the latest prediction took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import HEADLINE_CUTOFF_ANG, SUPPORT_ANG
from vcmbench.errors import VcmbenchError
from vcmbench.machine import (
    allowed_threads,
    peak_memory_bytes,
    processor_name,
    reset_peak_memory,
    return_free_memory,
)
from vcmbench.scores.hamiltonian import align, device_errors
from vcmbench.scores.result import (
    Equivariance,
    ThroughputGates,
    ThroughputSection,
    Timing,
    Unavailable,
)
from vcmbench.structure import Structure

Accelerator = Literal["cpu", "cuda"]

JITTER_ANG: Final = 0.01
"""Standard deviation of the random displacements of each repetition (Å)."""

STABLE: Final = 0.05
"""Warm-up ends when the median of the last three times changes by less than this fraction."""

MAX_WARMUP: Final = 8
"""Warm-up ends after so many predictions at the latest."""

REPEATS: Final = 5
"""Timed predictions."""

ACCURACY_TOLERANCE: Final = 0.01
"""Largest relative difference of the MAE of the timed code from the scored one."""

ACCURACY_FLOOR_MEV: Final = 1e-3
"""Differences of the MAE below this (meV) are rounding: the timed layout is float32."""

EQUIVARIANCE_LIMIT: Final = 1e-4
"""Largest relative equivariance residual of a model whose throughput counts."""


class Model(Protocol):
    """What is timed."""

    def predict(self, structure: Structure) -> BlockMatrix:
        """Predict H (eV, Fermi gauge) of a structure."""
        ...


class Delivered(NamedTuple):
    """Predicted H in the declared layout, in host memory.

    Attributes
    ----------
    pair, shift : (n_blocks, 2) and (n_blocks, 3) int32
        Half-stored blocks in canonical order.
    values : (n_entries,) float32
        Their entries, eV.
    """

    pair: NDArray[np.int32]
    shift: NDArray[np.int32]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class _Run:
    """Times of one series of predictions, s."""

    cold_s: float
    n_warmup: int
    stable: bool
    times_s: list[float]
    stages_s: dict[str, float] | None


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
    board = _Cuda.find() if accelerator == "cuda" else None
    n_threads = threads or allowed_threads()
    structures = _jittered(reference.pattern.structure, seed)
    with _pinned(n_threads):
        return_free_memory()
        reset_peak_memory()
        before = peak_memory_bytes()
        if board is not None:
            board.reset_peak()
        near = _repeat(model, HEADLINE_CUTOFF_ANG, structures, board, repeats, max_warmup)
        peak = peak_memory_bytes() - before if board is None else board.peak_bytes()
        full = _repeat(model, SUPPORT_ANG, structures, board, repeats, max_warmup)
        mae_mev = _delivered_mae_mev(model, device, reference)
    gates = _gates(mae_mev, scored_mae_mev, equivariance)
    timings = [
        _timing(run, reference, cutoff)
        for run, cutoff in ((near, HEADLINE_CUTOFF_ANG), (full, SUPPORT_ANG))
    ]
    counted = _count(reference, HEADLINE_CUTOFF_ANG)
    return ThroughputSection(
        accelerator=accelerator,
        accelerator_name=processor_name() if board is None else board.name,
        threads=n_threads,
        device=device,
        n_sites=reference.pattern.structure.n_sites,
        n_edges=counted.edges,
        n_nonzeros=counted.nonzeros,
        atoms_per_s=timings[0].atoms_per_s,
        edges_per_s=timings[0].edges_per_s,
        nonzeros_per_s=timings[0].nonzeros_per_s,
        peak_memory_bytes=max(0, peak),
        peak_memory_kind="resident increment" if board is None else "cuda allocator",
        cold_start_s=near.cold_s,
        near=timings[0],
        full=timings[1],
        stages_s=near.stages_s,
        gates=gates,
        counts=gates.passed,
    )


def deliver(model: Model, structure: Structure, cutoff_ang: float) -> Delivered:
    """Predict H and bring it into the declared layout: this is what is timed.

    Parameters
    ----------
    model : Model
        The model.
    structure : Structure
        Its input.
    cutoff_ang : float
        Blocks of sites at this distance (Å) or beyond are left out.
    """
    predict_within = getattr(model, "predict_within", None)
    if predict_within is not None:
        matrix: BlockMatrix = predict_within(structure, cutoff_ang)
    else:
        matrix = model.predict(structure)
    if matrix.pattern.directed:
        matrix = matrix.symmetrise()[0]
    if (matrix.pattern.distance >= cutoff_ang).any():
        matrix = matrix.truncate(cutoff_ang)
    pattern = matrix.pattern
    return Delivered(pattern.pair, pattern.shift, matrix.values.astype(np.float32))


def _jittered(structure: Structure, seed: int) -> Iterator[Structure]:
    """Endless sequence of slightly displaced structures."""
    rng = np.random.default_rng(seed)
    while True:
        displacements = rng.normal(scale=JITTER_ANG, size=structure.positions.shape)
        yield structure.moved(structure.positions + displacements)


def _repeat(
    model: Model,
    cutoff_ang: float,
    structures: Iterator[Structure],
    board: _Cuda | None,
    repeats: int,
    max_warmup: int,
) -> _Run:
    warmup: list[float] = []
    while len(warmup) < max_warmup and not is_stable(warmup):
        warmup.append(_timed(model, next(structures), cutoff_ang, board))
    times, stages = [], []
    for _ in range(repeats):
        times.append(_timed(model, next(structures), cutoff_ang, board))
        stages.append(_stage_seconds(model))
    return _Run(warmup[0], len(warmup), is_stable(warmup), times, _median_stages(stages))


def _timed(model: Model, structure: Structure, cutoff_ang: float, board: _Cuda | None) -> float:
    synchronise: Callable[[], None] = board.synchronise if board is not None else lambda: None
    synchronise()
    start = time.perf_counter()
    deliver(model, structure, cutoff_ang)
    synchronise()
    return time.perf_counter() - start


def is_stable(times_s: list[float]) -> bool:
    """Whether the median of the last three times differs little from that one step earlier."""
    if len(times_s) < 4:
        return False
    earlier, latest = np.median(times_s[-4:-1]), np.median(times_s[-3:])
    return bool(abs(latest - earlier) < STABLE * latest)


def _stage_seconds(model: Model) -> Mapping[str, float] | None:
    report = getattr(model, "stage_seconds", None)
    return None if report is None else dict(report())


def _median_stages(stages: list[Mapping[str, float] | None]) -> dict[str, float] | None:
    known = [s for s in stages if s is not None]
    if not known:
        return None
    return {name: float(np.median([s.get(name, 0.0) for s in known])) for name in known[-1]}


class _Counts(NamedTuple):
    edges: int
    nonzeros: int


def _count(reference: BlockMatrix, cutoff_ang: float) -> _Counts:
    """Directed edges and non-zero directed entries within a cutoff."""
    pattern = reference.pattern
    weight = np.where(pattern.distance < cutoff_ang, pattern.weight, 0)
    nonzero = np.add.reduceat(reference.values != 0, pattern.offset[:-1], dtype=np.int64)
    return _Counts(int(weight[~pattern.is_onsite].sum()), int(weight @ nonzero))


def _timing(run: _Run, reference: BlockMatrix, cutoff_ang: float) -> Timing:
    median = float(np.median(run.times_s))
    low, high = np.percentile(run.times_s, [25, 75])
    counts = _count(reference, cutoff_ang)
    return Timing(
        cutoff_ang=cutoff_ang,
        median_s=median,
        iqr_s=float(high - low),
        fastest_s=min(run.times_s),
        n_repeats=len(run.times_s),
        n_warmup=run.n_warmup,
        stable=run.stable,
        atoms_per_s=reference.pattern.structure.n_sites / median,
        edges_per_s=counts.edges / median,
        nonzeros_per_s=counts.nonzeros / median,
    )


def _delivered_mae_mev(model: Model, device: str, reference: BlockMatrix) -> float:
    """MAE closer than 8 Å of what the timed code delivers for the device itself."""
    structure, basis = reference.pattern.structure, reference.pattern.basis
    found = deliver(model, structure, HEADLINE_CUTOFF_ANG)
    pattern = BlockPattern(structure, basis, found.pair, found.shift)
    near = reference.truncate(HEADLINE_CUTOFF_ANG)
    aligned = align(BlockMatrix(pattern, found.values.astype(np.float64)), near.pattern)
    no_gauge = BlockMatrix.zeros(near.pattern)
    return device_errors(device, near, no_gauge, aligned).statistic.mae_mev


def _gates(
    mae_mev: float, scored_mae_mev: float, equivariance: Equivariance | Unavailable
) -> ThroughputGates:
    residual = equivariance.largest if isinstance(equivariance, Equivariance) else None
    tolerance = max(ACCURACY_TOLERANCE * scored_mae_mev, ACCURACY_FLOOR_MEV)
    return ThroughputGates(
        mae_mev=mae_mev,
        accuracy=abs(mae_mev - scored_mae_mev) <= tolerance,
        equivariance_residual=residual,
        equivariance=residual is not None and residual < EQUIVARIANCE_LIMIT,
    )


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
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


class _Cuda:
    """The board of a model that has imported torch."""

    def __init__(self, torch: Any) -> None:
        self._cuda = torch.cuda
        self.name: str = torch.cuda.get_device_name()

    @classmethod
    def find(cls) -> _Cuda:
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            raise VcmbenchError(
                "accelerator: found no CUDA board in use by the model, expected one for 'cuda'"
            )
        return cls(torch)

    def synchronise(self) -> None:
        self._cuda.synchronize()

    def reset_peak(self) -> None:
        self._cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        return int(self._cuda.max_memory_allocated())
