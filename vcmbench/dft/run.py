"""Run CP2K until it converges: start, watch, restart from saved state, try other mixing.

The folder of a run holds ``in.inp``, ``out.log`` (earlier attempts: ``out-1.log.old``, …),
``structure.extxyz``, the saved density and ``run.json``, the record of the attempts. A run that
was interrupted, at whatever point, goes on from there when it is asked for again.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from vcmbench.build.extxyz import write_extxyz
from vcmbench.dft.cp2k_input import (
    RESTART_NAME,
    Cp2kSettings,
    Mixing,
    cp2k_input,
)
from vcmbench.dft.launcher import Launcher
from vcmbench.dft.restart_file import is_complete
from vcmbench.documents import read_json, write_json
from vcmbench.errors import VcmbenchError
from vcmbench.store.content import atomic_file
from vcmbench.structure import Structure

INPUT: Final = "in.inp"
LOG: Final = "out.log"
RECORD: Final = "run.json"
STRUCTURE: Final = "structure.extxyz"

LADDER: Final = (
    Mixing(alpha=0.1, beta=0.6, n_vectors=10),
    Mixing(alpha=0.05, beta=1.0, n_vectors=8),
    Mixing(alpha=0.02, beta=1.5, n_vectors=6),
)
"""Mixing of the first attempt and of each further one: smaller steps, more Kerker damping of long
waves, less memory. Every attempt goes on from the density that the one before saved."""

DIVERGED: Final = 20.0
"""An attempt is given up when its residual exceeds the smallest so far by this factor …"""
PATIENCE: Final = 12
"""… in every one of so many last steps, or has not fallen for three times as many."""

_POLL_S: Final = 1.0
_PATIENCE_S: Final = 10.0
_STEP: Final = re.compile(
    r"^\s+(\d+)\s+\S.*?\s\d+\.\d+\s+(\d+\.\d+)\s+-?\d+\.\d+\s+-?\d\.\d+E[+-]\d+\s*$", re.MULTILINE
)
_PEAK: Final = re.compile(r"Estimated peak process memory \[MiB\]\s+(\d+)")

Progress = Callable[[int, float], None]
"""(SCF steps so far in all attempts, residual)."""


class Attempt(BaseModel):
    """One start of CP2K."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mixing: Mixing
    start: str
    """``"atomic"``, ``"saved"`` (this run's own density) or where the density came from."""
    steps: int
    """SCF steps."""
    residual: float | None = None
    """Convergence measure of the last step."""
    seconds: float
    outcome: Literal["converged", "not converged", "given up", "interrupted", "failed"]


class RunRecord(BaseModel):
    """``run.json``: how a run came about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    structure_sha256: str
    """Of ``structure.extxyz``."""
    settings: Cp2kSettings
    attempts: tuple[Attempt, ...] = ()
    peak_memory_mib: int | None = None
    """CP2K's estimate of the peak of one rank."""

    @property
    def converged(self) -> bool:
        """Whether the last attempt did."""
        return bool(self.attempts) and self.attempts[-1].outcome == "converged"

    @property
    def steps(self) -> int:
        """SCF steps of all attempts."""
        return sum(attempt.steps for attempt in self.attempts)

    @property
    def seconds(self) -> float:
        """Wall time of all attempts."""
        return sum(attempt.seconds for attempt in self.attempts)


def run_scf(
    folder: Path,
    structure: Structure,
    settings: Cp2kSettings,
    launcher: Launcher,
    *,
    start_density: tuple[str, Path] | None = None,
    progress: Progress = lambda _steps, _residual: None,
) -> RunRecord:
    """Bring the run in a folder to convergence.

    Parameters
    ----------
    folder : Path
        Folder of the run; made if it is not there, continued if it is.
    structure : Structure
        Sites in [0, L) (`vcmbench.dft.cp2k_input.placed_in_cell`).
    settings : Cp2kSettings
        Settings; the mixing is that of `LADDER`.
    launcher : Launcher
        How to start CP2K.
    start_density : tuple of str and Path, optional
        Name and file of a density of the same orbitals to start from; free atoms without it.
    progress : callable
        Told of every SCF step.

    Returns
    -------
    RunRecord
        With matrices and log in the folder.

    Raises
    ------
    VcmbenchError
        If another process has the folder, the folder holds another run, CP2K fails, or no mixing
        of the ladder converges.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        record = _record(folder, structure, settings)
        # Matrices that were deleted are printed again, a few steps from the saved density.
        printed = any(folder.glob("*.csr"))
        while not (record.converged and printed):
            printed = True
            rung = sum(a.outcome in ("not converged", "given up") for a in record.attempts)
            if rung == len(LADDER):
                raise VcmbenchError(
                    f"{folder}: SCF: found no convergence to {settings.eps_scf:g} with any of "
                    f"{len(LADDER)} mixings ({record.steps} steps), expected one; see {LOG}, "
                    "and remove the folder to start afresh"
                )
            record = _attempt(
                folder, structure, settings, LADDER[rung], launcher, start_density, record, progress
            )
            if record.attempts[-1].outcome == "failed":
                raise VcmbenchError(f"{folder / LOG}: CP2K failed: {_last_words(folder)}")
        return record


def _attempt(
    folder: Path,
    structure: Structure,
    settings: Cp2kSettings,
    mixing: Mixing,
    launcher: Launcher,
    start_density: tuple[str, Path] | None,
    record: RunRecord,
    progress: Progress,
) -> RunRecord:
    """Run CP2K once; it stands in the record from its start on, so no interruption hides it."""
    if _has_density(folder):
        start, density = "saved", RESTART_NAME
    elif start_density is not None:
        start, density = start_density[0], os.path.relpath(start_density[1], folder)
    else:
        start, density = "atomic", None
    text = cp2k_input(
        structure, settings.model_copy(update={"mixing": mixing}), start_density=density
    )
    _clear(folder, len(record.attempts))
    with atomic_file(folder / INPUT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    attempt = Attempt(
        mixing=mixing, start=start, steps=0, residual=None, seconds=0.0, outcome="interrupted"
    )
    write_json(folder / RECORD, record.model_copy(update={"attempts": (*record.attempts, attempt)}))
    begin = time.monotonic()
    outcome: Literal["converged", "not converged", "given up", "interrupted", "failed"]
    outcome = "interrupted"
    try:
        outcome = _watch(folder, launcher, record.steps, progress)
    finally:
        attempt = _measured(folder, attempt, time.monotonic() - begin)
        attempt = attempt.model_copy(update={"outcome": outcome})
        record = record.model_copy(
            update={
                "attempts": (*record.attempts, attempt),
                "peak_memory_mib": _peak_memory(folder / LOG) or record.peak_memory_mib,
            }
        )
        write_json(folder / RECORD, record)
    return record


def _measured(folder: Path, attempt: Attempt, seconds: float) -> Attempt:
    """Attempt with the steps that the log holds."""
    rows = _steps(folder / LOG)
    update = {"steps": len(rows), "residual": rows[-1] if rows else None}
    return attempt.model_copy(update={**update, "seconds": round(seconds, 1)})


def _has_density(folder: Path) -> bool:
    """Whether a density is saved, whole: CP2K puts the one before aside while it writes."""
    for name in (RESTART_NAME, f"{RESTART_NAME}.bak-1"):
        if is_complete(folder / name):
            (folder / name).replace(folder / RESTART_NAME)
            return True
    return False


def _watch(
    folder: Path, launcher: Launcher, steps_before: int, progress: Progress
) -> Literal["converged", "not converged", "given up", "failed"]:
    """Start CP2K and follow its log to the end."""
    command = [*launcher.command, "-i", INPUT, "-o", LOG]
    with (folder / "err.txt").open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=errors,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **launcher.environment},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    seen = 0
    try:
        while process.poll() is None:
            time.sleep(_POLL_S)
            residuals = _steps(folder / LOG)
            if len(residuals) > seen:
                seen = len(residuals)
                progress(steps_before + seen, residuals[-1])
            if hopeless(residuals):
                return "given up"
    finally:
        _stop(process)
    residuals = _steps(folder / LOG)
    if len(residuals) > seen:
        progress(steps_before + len(residuals), residuals[-1])
    text = _read(folder / LOG)
    # CP2K from 2024 on aborts with these words.
    if "SCF run NOT converged" in text:
        return "not converged"
    if "PROGRAM ENDED AT" not in text:
        return "failed"
    return "converged" if "*** SCF run converged" in text else "not converged"


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent is killed: no run goes on unwatched."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def hopeless(residuals: list[float]) -> bool:
    """Whether an SCF is better given up: it runs away, or has stopped getting better."""
    if len(residuals) <= PATIENCE:
        return False
    best = min(residuals)
    if all(r > DIVERGED * best for r in residuals[-PATIENCE:]):
        return True
    return residuals.index(best) < len(residuals) - 3 * PATIENCE


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End mpirun and all its ranks."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_PATIENCE_S)
    # Also a rank that outlives mpirun: it would go on writing here.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _clear(folder: Path, n_attempts: int) -> None:
    """Keep the log of the attempt before under its number; matrices of it go."""
    if (folder / LOG).exists():
        (folder / LOG).rename(folder / f"out-{n_attempts}.log.old")
    for path in folder.glob("*.csr"):
        path.unlink()


def _record(folder: Path, structure: Structure, settings: Cp2kSettings) -> RunRecord:
    """Read the record of an earlier call and see that it is of this run, or begin one."""
    path = folder / RECORD
    settings = settings.model_copy(update={"mixing": LADDER[0]})
    with TemporaryDirectory() as scratch:
        text = Path(scratch) / STRUCTURE
        write_extxyz(text, structure)
        content = text.read_bytes()
    begun = RunRecord(structure_sha256=hashlib.sha256(content).hexdigest(), settings=settings)
    if not path.exists():
        with atomic_file(folder / STRUCTURE) as temporary:
            temporary.write_bytes(content)
        write_json(path, begun)
        return begun
    record = read_json(RunRecord, path)
    for name in ("structure_sha256", "settings"):
        if (found := getattr(record, name)) != (expected := getattr(begun, name)):
            raise VcmbenchError(
                f"{path}: {name}: found {found}, expected {expected}: another run's folder; "
                "remove it to start afresh"
            )
    if record.attempts and record.attempts[-1].outcome == "interrupted":
        # Killed, it had no time to say how far it came.
        *before, last = record.attempts
        last = _measured(folder, last, last.seconds or _logged_seconds(folder))
        record = record.model_copy(update={"attempts": (*before, last)})
    return record


def _logged_seconds(folder: Path) -> float:
    """Time from the input to the last line of the log."""
    if not (folder / LOG).exists():
        return 0.0
    return max(0.0, (folder / LOG).stat().st_mtime - (folder / INPUT).stat().st_mtime)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VcmbenchError(f"{folder}: another process is running here") from None
        yield


def _steps(log: Path) -> list[float]:
    """Residual of each SCF step in a log."""
    return [float(match[2]) for match in _STEP.finditer(_read(log))]


def _peak_memory(log: Path) -> int | None:
    found = _PEAK.search(_read(log))
    return int(found[1]) if found else None


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _last_words(folder: Path) -> str:
    """Say what CP2K or MPI printed last, in one line."""
    aborted = re.search(r"\[ABORT\].*?\n(.*?)\n \*{20}", _read(folder / LOG), re.DOTALL)
    if aborted:
        # Beside the words stands a man of stars and slashes.
        words = (line[9:].strip(" *") for line in aborted[1].splitlines())
        return " ".join(" ".join(words).split())
    lines = [line for name in (LOG, "err.txt") for line in _read(folder / name).splitlines()]
    return next((line.strip() for line in reversed(lines) if line.strip(" -*")), "no output")
