"""The whole protocol: one process after the other, kept results, one report.

output/throughput.json    the report
output/ladder.png         time over the number of sites
output/stages/            finished measurements: the same again is not measured again
output/logs/              what each process wrote to standard error
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from vcmbench.documents import read_json
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.machine import available_cpus, idlest_cpus, own_version
from vcmbench.models.interface import CARD
from vcmbench.models.loader import directory_digest, known_baselines
from vcmbench.release import DEFAULT_SPLIT, Release, find_release
from vcmbench.scores.result import DatasetInfo
from vcmbench.scores.timing import JITTER_ANG
from vcmbench.stages import Stages
from vcmbench.store.content import atomic_file
from vcmbench.structure import Structure
from vcmbench.throughput.document import Devices, Failed, Rung, Settings, Throughput
from vcmbench.throughput.failure import describe_exit
from vcmbench.throughput.ladder import SIZES, Copies, rungs
from vcmbench.throughput.plot import plot_ladder
from vcmbench.throughput.scaling import ladder
from vcmbench.throughput.trial import OUTCOME, TOLD, Outcome, Trial

REPORT: Final = "throughput.json"
PLOT: Final = "ladder.png"

START_S: Final = 120.0
"""Time for start, loading and checks of one process, beyond a multiple of its predictions'."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to measure; the fields are the options of ``vcmbench throughput``."""

    model: str
    dataset: str = "vcm-demo"
    selection: str = "test"
    accelerator: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None
    sizes: tuple[int, ...] = SIZES
    seed: int = 0
    max_seconds: float = 15.0
    output: Path | None = None


class Finished(NamedTuple):
    """A report and the folder it was written to."""

    report: Throughput
    folder: Path


def run(request: Request, progress: Progress = lambda _text: None) -> Finished:
    """Measure and write ``throughput.json`` and the plot of the ladder.

    Parameters
    ----------
    request : Request
        Model, data and options.
    progress : callable
        Called with what is being measured.

    Returns
    -------
    Finished

    Raises
    ------
    VcmbenchError
        If the model, the dataset or an option is unusable.
    """
    release = find_release(request.dataset)
    ids = list(release.device_ids(request.selection))
    if not ids:
        raise VcmbenchError(f"{release.label}: {request.selection!r} holds no device")
    folder = request.output or Path("results") / f"throughput-{_name(request)}"
    return _Protocol(request, release, ids, folder, progress).run()


class _Protocol:
    def __init__(
        self,
        request: Request,
        release: Release,
        ids: list[str],
        folder: Path,
        progress: Progress,
    ) -> None:
        self.request = request
        self.release = release
        self.ids = ids
        self.folder = folder
        self.progress = progress
        self.threads = request.threads or available_cpus()
        self.digest = _model_digest(request.model)
        self.stages = Stages(folder / "stages")
        structures = {name: release.device(name).structure for name in ids}
        self.device = _richest(structures)
        self.n_unit = structures[self.device].n_sites

    def run(self) -> Finished:
        request = self.request
        sizes = rungs(self.n_unit, request.sizes)
        devices = self._outcome("devices", self._trial(None, None), f"0 of {len(sizes)} sizes")
        if isinstance(devices, Failed) and devices.outcome == "refused":
            raise VcmbenchError(devices.error)
        # If that failed, each process measures it again.
        scored = devices.gates.scored_mae_mev if isinstance(devices, Devices) else None
        climbed: list[Rung] = []
        stop: str | None = None
        for index, copies in enumerate(sizes):
            n_sites = copies.number * self.n_unit
            name = f"{n_sites} sites"
            if stop is None:
                found = self._outcome(
                    name, self._trial(copies, scored), f"size {1 + index} of {len(sizes)}"
                )
                stop = _stop(found, n_sites)
            else:
                found = Failed(outcome="skipped", error=stop)
            assert not isinstance(found, Devices)
            climbed.append(Rung(n_sites=n_sites, copies=(copies.y, copies.z), result=found))
        assert isinstance(devices, Devices | Failed)
        report = Throughput(
            dataset=self._dataset(),
            settings=Settings(
                threads=request.threads,
                sizes=list(request.sizes),
                max_seconds_per_size=request.max_seconds,
                seed=request.seed,
                jitter_ang=JITTER_ANG,
            ),
            devices=devices,
            ladder=ladder(self.device, climbed),
        )
        with atomic_file(self.folder / REPORT) as temporary:
            temporary.write_text(report.to_json(), encoding="utf-8")
        plot_ladder(self.folder / PLOT, request.model, report.ladder)
        return Finished(report, self.folder)

    def _trial(self, copies: Copies | None, scored_mae_mev: float | None) -> Trial:
        request = self.request
        return Trial(
            model=request.model,
            release=str(self.release.folder.resolve()),
            devices=self.ids,
            device=self.device,
            copies=None if copies is None else (copies.y, copies.z),
            scored_mae_mev=scored_mae_mev,
            accelerator=request.accelerator,
            threads=self.threads,
            seed=request.seed,
            max_seconds=request.max_seconds,
        )

    def _outcome(self, name: str, trial: Trial, place: str) -> Outcome:
        """Kept outcome of a trial, or a new one; crashes and time-outs are tried again."""
        key = [
            trial.model_dump(mode="json", exclude={"release"}),
            self.release.manifest.digest,
            self.digest,
            own_version(),
            platform.node(),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
        ]
        kept = None if self.digest is None else self.stages.find(name, key, OUTCOME)
        if kept is not None:
            return kept

        def tell(done: int) -> None:
            self.progress(f"{name} ({place}), {done} predictions")

        tell(0)
        found = run_trial(trial, self.folder, name.replace(" ", "-"), tell)
        if not isinstance(found, Failed) or found.outcome == "out of memory":
            self.stages.keep(name, key, OUTCOME, found)
        return found

    def _dataset(self) -> DatasetInfo:
        manifest = self.release.manifest
        split, _, part = self.request.selection.rpartition(":")
        return DatasetInfo(
            name=manifest.name,
            version=manifest.version,
            digest=manifest.digest,
            split=split or DEFAULT_SPLIT,
            part=part,
            devices=self.ids,
        )


def parse_sizes(text: str) -> tuple[int, ...]:
    """Numbers of sites, comma-separated.

    Raises
    ------
    VcmbenchError
        If one is no positive integer.
    """
    sizes = []
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) == 0:
            raise bad_input(
                "throughput", "--sizes", found=repr(part), expected="numbers of sites, 300,1000"
            )
        sizes.append(int(part))
    return tuple(sizes)


def run_trial(
    trial: Trial, folder: Path, name: str, tell: Callable[[int], None] = lambda _done: None
) -> Outcome:
    """Run one trial in a new process.

    Parameters
    ----------
    trial : Trial
        What to measure.
    folder : Path
        Its log goes to ``logs/`` in there.
    name : str
        Name of the log.
    tell : callable
        Called with the number of finished predictions.

    Returns
    -------
    Outcome
        What it found, or why it found nothing: it ran out of memory, out of time, or died.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    result, log = logs / f"{name}.json", logs / f"{name}.log"
    result.unlink(missing_ok=True)
    n_series = 4 if trial.copies else 6 + 2 * len(trial.devices)
    limit_s = START_S + n_series * trial.max_seconds
    with log.open("wb") as errors, _bound(trial.threads):
        process = subprocess.Popen(
            [sys.executable, "-m", "vcmbench.throughput.trial", str(result)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **_thread_variables(trial.threads)},
            start_new_session=True,
            text=True,
        )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(trial.model_dump_json())
        process.stdin.close()
        listener = threading.Thread(target=_listen, args=(process.stdout, tell), daemon=True)
        listener.start()
        code = process.wait(timeout=limit_s)
    except BrokenPipeError:
        code = process.wait()
    except subprocess.TimeoutExpired:
        return Failed(
            outcome="timed out",
            error=f"not finished after {limit_s:.0f} s, with {trial.max_seconds:g} s for its "
            "predictions: give it more with --max-seconds-per-size",
        )
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0 and result.exists():
        found: Outcome = read_json(OUTCOME, result)
        result.unlink()
        return found
    return describe_exit(code, log.read_text(encoding="utf-8", errors="replace")[-20_000:])


def _listen(stream: IO[str], tell: Callable[[int], None]) -> None:
    for line in stream:
        if line.startswith(TOLD):
            tell(int(line.removeprefix(TOLD)))


def _thread_variables(threads: int) -> dict[str, str]:
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    return {f"{name}_NUM_THREADS": str(threads) for name in names}


@contextmanager
def _bound(threads: int) -> Iterator[None]:
    """Bind this thread, and the processes it starts, to as many CPUs as they have threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cpus = os.sched_getaffinity(0)
    with suppress(OSError):  # A sandbox may not allow it; the result says what was found.
        os.sched_setaffinity(0, idlest_cpus(threads))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, cpus)


def _stop(found: Outcome, n_sites: int) -> str | None:
    """Why larger structures need not be tried."""
    if isinstance(found, Failed) and found.outcome in ("out of memory", "timed out"):
        return f"{n_sites:,} sites: {found.outcome}"
    return None


def _richest(structures: dict[str, Structure]) -> str:
    """Device with the most species, the first of them: the ladder exercises all of a model."""
    return max(structures, key=lambda name: len(structures[name].species_list))


def _name(request: Request) -> str:
    model = Path(request.model).name.replace(":", ".")
    return f"{model}-{Path(request.dataset).name}-{request.accelerator}"


def _model_digest(spec: str) -> str | None:
    """Digest of a model directory, None for a callable, whose code may change."""
    known = known_baselines()
    folder = known.get(spec, Path(spec))
    if (folder / CARD).is_file():
        return directory_digest(folder)
    if folder.is_dir():
        raise bad_input(
            spec,
            "model",
            found="predictions, which cannot be timed",
            expected="a baseline, a model directory or module:callable",
        )
    return None
