"""One measurement in a process of its own: a device and a test set, or one size of the ladder.

    python -m vcmbench.throughput.trial RESULT.json < trial.json

Writes its outcome and prints a line per prediction. `vcmbench.throughput.run` starts it with the
threads pinned.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter

from vcmbench.blocks import BlockMatrix
from vcmbench.board import Board
from vcmbench.device import HEADLINE_CUTOFF_ANG, SUPPORT_ANG
from vcmbench.documents import Document
from vcmbench.errors import VcmbenchError
from vcmbench.machine import (
    available_bytes,
    peak_memory_bytes,
    reset_peak_memory,
    return_free_memory,
)
from vcmbench.models import LoadedModel, load_model
from vcmbench.release import Release
from vcmbench.scores import physicality
from vcmbench.scores.result import Environment, ModelInfo, Unavailable
from vcmbench.scores.throughput import (
    ACCURACY_FLOOR_MEV,
    ACCURACY_TOLERANCE,
    EQUIVARIANCE_LIMIT,
    deliver_matrix,
    near_mae_mev,
    pinned,
)
from vcmbench.scores.timing import (
    MAX_WARMUP,
    REPEATS,
    Counts,
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
from vcmbench.store.content import atomic_file
from vcmbench.structure import Structure
from vcmbench.throughput.document import (
    Devices,
    Energy,
    Failed,
    Gates,
    Latency,
    Measured,
    Memory,
)
from vcmbench.throughput.failure import describe
from vcmbench.throughput.ladder import Copies, copies_residual, supercell
from vcmbench.throughput.nvml import EnergyMeter, Nvml, Window, reading
from vcmbench.throughput.surroundings import describe_accelerator

T = TypeVar("T")

LATENCY_REPEATS: Final = 50
"""Timed predictions of one device, for the tail; fewer where the time is up."""

FEWEST_REPEATS: Final = 2
"""Timed predictions where the time is up before."""

WARMUP_SHARE: Final = 0.4
"""Part of the time that the warm-up may take."""

IDLE_S: Final = 1.0
"""Time over which the idle power is measured, s."""

ENERGY_WINDOW_S: Final = 2.0
"""Predictions go on until the window of the energy is this long, s."""

COPIES_LIMIT: Final = 1e-4
"""Largest relative difference of a supercell's blocks from the device's."""

TOLD: Final = "predictions:"
"""Begins the lines about progress."""


class Trial(Document):
    """What is measured."""

    model: str
    """As on the command line."""
    release: str
    """Folder of the release."""
    devices: list[str]
    """Test set."""
    device: str
    """Device whose latency is measured, or that is repeated."""
    copies: tuple[int, int] | None = None
    """Copies in y and z: a size of the ladder. None: the device and the test set."""
    scored_mae_mev: float | None = None
    """MAE of `predict` for the device, if another process has measured it."""
    accelerator: Literal["cpu", "cuda"]
    threads: int
    """Threads."""
    seed: int
    """Seed of the displacements."""
    max_seconds: float
    """Time for warm-up and predictions, the cold one apart, s."""


Outcome = Devices | Measured | Failed
OUTCOME: Final = TypeAdapter[Outcome](Outcome)


def main() -> None:
    """Run the trial on standard input and write its outcome."""
    trial = Trial.model_validate_json(sys.stdin.read())
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        sys.stdout.write(f"{TOLD} {done}\n")
        sys.stdout.flush()

    if trial.accelerator == "cpu":
        _limit_memory()
    outcome = run(trial, tell)
    with atomic_file(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(OUTCOME.dump_json(outcome))


def run(trial: Trial, tell: Callable[[], None] = lambda: None) -> Outcome:
    """Measure, or say why not."""
    try:
        with pinned(trial.threads):
            return _Bench(trial, tell).measure()
    except VcmbenchError as error:
        return Failed(outcome="refused", error=str(error))
    except Exception as error:
        return describe(error)


def _limit_memory() -> None:
    """Let an allocation beyond the free memory fail, instead of the system killing some process."""
    available = available_bytes()
    if available is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (int(available), resource.RLIM_INFINITY))


@dataclass(frozen=True)
class _Power:
    """What measures the energy, and the power of the idle board, W."""

    meter: EnergyMeter
    idle_w: float


@dataclass(frozen=True)
class _Series:
    latency: Latency
    stages_s: dict[str, float] | None
    energy: Energy | Unavailable


_NOT_HERE: Final = Unavailable(reason="not measured for this series")


class _Bench:
    """A loaded model, the structure it is timed on, and what watches it."""

    def __init__(self, trial: Trial, tell: Callable[[], None]) -> None:
        self.trial = trial
        self.tell = tell
        self.release = Release.open(Path(trial.release))
        self.unit = self.release.device(trial.device).hamiltonian
        self.copies = Copies(*(trial.copies or (1, 1)))
        self.structure = supercell(self.unit.pattern.structure, self.copies, trial.device)
        start = time.perf_counter()
        self.loaded: LoadedModel = load_model(trial.model, accelerator=trial.accelerator)
        self.model = self.loaded.model
        self.board = Board.find() if trial.accelerator == "cuda" else None
        self.nvml = self._find_nvml()
        self.load_s = time.perf_counter() - start
        self.allocated = 0 if self.board is None else self.board.allocated_bytes()
        self.board_used: list[int] = []
        self.watch = Stopwatch(self.model, self.board.synchronise if self.board else lambda: None)

    def _find_nvml(self) -> Nvml | Unavailable:
        if self.board is None:
            return Unavailable(reason="the CPU has no board")
        return Nvml.find(self.board.torch)

    def measure(self) -> Measured:
        trial = self.trial
        counts = count(self.unit, HEADLINE_CUTOFF_ANG).copies(self.copies.number)
        idle_bytes = self._board_reading(Nvml.used_bytes)
        power = self._board_reading(self._idle)
        return_free_memory()
        reset_peak_memory()
        host_before = peak_memory_bytes()
        if self.board is not None:
            self.board.reset_peak()
        structures = jittered(self.structure, trial.seed)
        alone = trial.copies is None
        near = self._series(
            lambda: self.watch.time(next(structures), HEADLINE_CUTOFF_ANG),
            counts,
            HEADLINE_CUTOFF_ANG,
            most=LATENCY_REPEATS if alone else REPEATS,
            power=power,
        )
        memory = self._memory(idle_bytes, host_before)
        accelerator = describe_accelerator(
            trial.accelerator, trial.threads, self.model, self.board, self.nvml, used=self._used()
        )
        more = self._devices(structures) if alone else {}
        gates = self._gates()
        found = {
            "n_sites": counts.sites,
            "n_edges": counts.edges,
            "n_nonzeros": counts.nonzeros,
            "load_s": self.load_s,
            "near": near.latency,
            "stages_s": near.stages_s,
            "memory": memory,
            "energy": near.energy,
            "gates": gates,
            "counts": gates.passed and accelerator.used,
            "accelerator": accelerator,
            "environment": Environment.collect(),
        }
        return Devices(**found, **more) if alone else Measured(**found)

    # --- predictions --------------------------------------------------------------------------

    def _series(
        self,
        once: Callable[[], Timed],
        counts: Counts,
        cutoff_ang: float,
        *,
        most: int,
        power: _Power | Unavailable = _NOT_HERE,
    ) -> _Series:
        def watched() -> Timed:
            timed = once()
            self._note_board_memory()
            self.tell()
            return timed

        budget_s = self.trial.max_seconds
        warmup_s = warm_up(watched, most=MAX_WARMUP, budget_s=WARMUP_SHARE * budget_s)
        left_s = budget_s - sum(warmup_s[1:])

        def counted() -> list[Timed]:
            return repeat(watched, fewest=FEWEST_REPEATS, most=most, budget_s=left_s)

        energy: Energy | Unavailable
        if isinstance(power, Unavailable):
            timed, energy = counted(), power
        else:
            timed, energy = self._metered(counted, watched, power, counts.sites)
        return _Series(_latency(warmup_s, timed, counts, cutoff_ang), median_stages(timed), energy)

    def _metered(
        self,
        counted: Callable[[], list[Timed]],
        once: Callable[[], Timed],
        power: _Power,
        n_sites: int,
    ) -> tuple[list[Timed], Energy | Unavailable]:
        """Predictions that count, and more of them until the window of the energy is full."""
        start = time.perf_counter()
        with power.meter.window() as window:
            timed = counted()
            extra = 0
            while time.perf_counter() - start < ENERGY_WINDOW_S:
                once()
                extra += 1
        return timed, reading(lambda: _energy(power, window, len(timed) + extra, n_sites))

    def _devices(self, structures: Iterator[Structure]) -> dict[str, object]:
        """Whole support, offline throughput and errors of the test set."""
        trial = self.trial
        full = self._series(
            lambda: self.watch.time(next(structures), SUPPORT_ANG),
            count(self.unit, SUPPORT_ANG),
            SUPPORT_ANG,
            most=LATENCY_REPEATS,
        )
        references = {name: self.release.device(name).hamiltonian for name in trial.devices}
        queues = [
            jittered(reference.pattern.structure, trial.seed + 1 + index)
            for index, reference in enumerate(references.values())
        ]
        counts = [count(reference, HEADLINE_CUTOFF_ANG) for reference in references.values()]
        offline = self._series(
            lambda: self.watch.time_all([next(queue) for queue in queues], HEADLINE_CUTOFF_ANG),
            Counts(*(sum(values) for values in zip(*counts, strict=True))),
            HEADLINE_CUTOFF_ANG,
            most=REPEATS,
        )
        return {
            "model": ModelInfo.model_validate(self.loaded.info),
            "device": trial.device,
            "full": full.latency,
            "offline": offline.latency,
            "offline_devices": trial.devices,
            "mae_mev_by_device": {
                name: near_mae_mev(reference, self._delivered(reference))
                for name, reference in references.items()
            },
        }

    # --- checks -------------------------------------------------------------------------------

    def _scored_mae_mev(self) -> float:
        """MAE of what the scores ask for."""
        return near_mae_mev(self.unit, self.model.predict(self.unit.pattern.structure))

    def _gates(self) -> Gates:
        scored_mae_mev = self.trial.scored_mae_mev
        if scored_mae_mev is None:
            scored_mae_mev = self._scored_mae_mev()
        unit = self._delivered(self.unit)
        mae_mev = near_mae_mev(self.unit, unit)
        basis = self.unit.pattern.basis

        def timed_code(structure: Structure) -> BlockMatrix:
            return deliver(self.model, structure, HEADLINE_CUTOFF_ANG).matrix(structure, basis)

        cut = physicality.cut_out(self.unit.pattern.structure)
        residual = physicality.equivariance(timed_code, self.trial.device, cut).largest
        tolerance = max(ACCURACY_TOLERANCE * scored_mae_mev, ACCURACY_FLOOR_MEV)
        copies = self._copies_residual(unit)
        return Gates(
            mae_mev=mae_mev,
            scored_mae_mev=scored_mae_mev,
            accuracy=abs(mae_mev - scored_mae_mev) <= tolerance,
            equivariance_residual=residual,
            equivariance=residual < EQUIVARIANCE_LIMIT,
            copies_residual=copies if math.isfinite(copies) else None,
            copies=copies < COPIES_LIMIT,
        )

    def _copies_residual(self, unit: BlockMatrix) -> float:
        if self.copies.number == 1:
            return 0.0
        delivered = deliver(self.model, self.structure, HEADLINE_CUTOFF_ANG)
        self.tell()
        return copies_residual(unit, self.copies, delivered)

    def _delivered(self, reference: BlockMatrix) -> BlockMatrix:
        return deliver_matrix(self.model, reference, HEADLINE_CUTOFF_ANG)

    # --- readings -----------------------------------------------------------------------------

    def _board_reading(self, read: Callable[[Nvml], T]) -> T | Unavailable:
        """Return a reading of the board, or why there is none."""
        nvml = self.nvml
        return nvml if isinstance(nvml, Unavailable) else reading(lambda: read(nvml))

    def _used(self) -> bool:
        """Whether predictions allocated memory where they were to compute."""
        return self.board is None or self.board.peak_bytes() > self.allocated

    def _note_board_memory(self) -> None:
        used = self._board_reading(Nvml.used_bytes)
        if not isinstance(used, Unavailable):
            self.board_used.append(used)

    def _memory(self, idle_bytes: int | Unavailable, host_before: int) -> Memory:
        board = self.board
        none = Unavailable(reason="the CPU has no board")
        used = self._board_reading(Nvml.used_bytes)
        return Memory(
            allocator_peak_bytes=none if board is None else reading(board.peak_bytes),
            allocator_reserved_bytes=none if board is None else reading(board.peak_reserved_bytes),
            board_used_bytes=max(self.board_used) if self.board_used else used,
            board_idle_bytes=idle_bytes,
            host_peak_bytes=max(0, peak_memory_bytes() - host_before),
        )

    def _idle(self, nvml: Nvml) -> _Power:
        """Meter of the board, and its power while nothing is predicted."""
        assert self.board is not None
        meter = EnergyMeter(nvml)
        self.board.synchronise()
        with meter.window() as window:
            time.sleep(IDLE_S)
        return _Power(meter, window.power_w)


def _energy(power: _Power, window: Window, n_predictions: int, n_sites: int) -> Energy:
    net_j = window.energy_j - power.idle_w * window.seconds
    return Energy(
        method=power.meter.method,
        joules_per_atom=net_j / (n_predictions * n_sites),
        power_w=window.power_w,
        idle_power_w=power.idle_w,
        window_s=window.seconds,
        n_predictions=n_predictions,
    )


def _latency(
    warmup_s: list[float], timed: list[Timed], counts: Counts, cutoff_ang: float
) -> Latency:
    return Latency(
        **timing(warmup_s, timed, counts, cutoff_ang).model_dump(),
        cold_s=warmup_s[0],
        p90_s=float(np.percentile([t.seconds for t in timed], 90)),
    )


if __name__ == "__main__":
    main()
