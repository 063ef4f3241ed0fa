"""What the leaderboard takes from ``throughput.json``, the report of `vcmbench throughput`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vcmbench.documents import Document
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.leaderboard.hardware import read_hardware
from vcmbench.leaderboard.problems import closest, refuse, schema_problems
from vcmbench.release.manifest import Name
from vcmbench.scores.result import SCORE_SPEC


class Rung(Document):
    """One size of the ladder."""

    n_sites: int
    """Sites of the structure, ghosts included."""
    outcome: str
    """``measured``, or what came in between: ``out of memory``, ``timed out``, …"""
    median_s: float | None = None
    """Median time of the 8 Å part, s."""
    atoms_per_s: float | None = None
    """Sites per second."""
    peak_memory_bytes: int | None = None
    """Peak memory: of the allocator on a board, of the process on a CPU."""


class VerifiedThroughput(Document):
    """A throughput that the maintainers measured on a machine of ``hardware.yml``."""

    hardware: Name
    """Name of the machine."""
    accelerator_name: str
    """Model name of the board or processor."""
    threads: int
    """Threads of BLAS, OpenMP and torch."""
    device: str
    """Device of the headline."""
    n_sites: int
    """Its sites, ghosts included."""
    atoms_per_s: float
    """Sites per second of the 8 Å part. The headline."""
    edges_per_s: float
    """Directed edges per second of the 8 Å part."""
    median_s: float
    """Median time of the 8 Å part, s."""
    full_median_s: float
    """Median time of the whole support, s."""
    peak_memory_bytes: int
    """Peak memory: of the allocator on a board, of the process on a CPU."""
    ladder: tuple[Rung, ...]
    """Sizes, ascending."""
    slope: float | None
    """Of ln(time) over ln(sites): 1 is linear."""


class _View(BaseModel):
    """Some fields of a larger schema."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class _Unavailable(_View):
    reason: str


class _Accelerator(_View):
    kind: Literal["cpu", "cuda"]
    name: str
    threads: int


class _Memory(_View):
    allocator_peak_bytes: int | _Unavailable
    host_peak_bytes: int

    @property
    def peak_bytes(self) -> int:
        if isinstance(self.allocator_peak_bytes, int):
            return self.allocator_peak_bytes
        return self.host_peak_bytes


class _Timing(_View):
    median_s: float
    atoms_per_s: float
    edges_per_s: float


class _Measured(_View):
    outcome: Literal["measured"]
    n_sites: int
    near: _Timing
    memory: _Memory
    counts: bool


class _Failed(_View):
    outcome: Literal["out of memory", "timed out", "crashed", "refused", "skipped"]


class _Model(_View):
    digest: str | None


class _Devices(_Measured):
    model: _Model
    device: str
    full: _Timing
    accelerator: _Accelerator


class _Rung(_View):
    n_sites: int
    result: Annotated[_Measured | _Failed, Field(discriminator="outcome")]


class _Slope(_View):
    slope: float


class _Ladder(_View):
    rungs: list[_Rung]
    slope: _Slope | _Unavailable


class _Report(_View):
    score_spec: int
    devices: Annotated[_Devices | _Failed, Field(discriminator="outcome")]
    ladder: _Ladder


def verified_throughput(
    path: Path, hardware: str, leaderboard: Path, model_digest: str | None
) -> VerifiedThroughput:
    """Read a report and check that it may count.

    Parameters
    ----------
    path : Path
        ``throughput.json`` that the maintainers measured.
    hardware : str
        Machine of ``hardware.yml`` that it was measured on.
    leaderboard : Path
        Folder with ``hardware.yml``.
    model_digest : str or None
        SHA-256 of the model that was submitted, None for predictions alone.

    Raises
    ------
    VcmbenchError
        If it is of another machine, specification or model, or a gate failed.
    """
    report = _read(path)
    if report.score_spec != SCORE_SPEC:
        raise bad_input(path, "score_spec", found=report.score_spec, expected=SCORE_SPEC)
    devices = report.devices
    if isinstance(devices, _Failed):
        raise bad_input(path, "devices", found=devices.outcome, expected="figures")
    if not devices.counts:
        raise bad_input(path, "counts", found="a gate that failed", expected="all of them passed")
    if model_digest is not None and devices.model.digest != model_digest:
        raise bad_input(
            path,
            "model.digest",
            found=devices.model.digest,
            expected=f"{model_digest}, that of the submission",
        )
    _require_machine(path, hardware, leaderboard, devices.accelerator)
    slope = report.ladder.slope
    return VerifiedThroughput(
        hardware=hardware,
        accelerator_name=devices.accelerator.name,
        threads=devices.accelerator.threads,
        device=devices.device,
        n_sites=devices.n_sites,
        atoms_per_s=devices.near.atoms_per_s,
        edges_per_s=devices.near.edges_per_s,
        median_s=devices.near.median_s,
        full_median_s=devices.full.median_s,
        peak_memory_bytes=devices.memory.peak_bytes,
        ladder=tuple(map(_rung, report.ladder.rungs)),
        slope=slope.slope if isinstance(slope, _Slope) else None,
    )


def _read(path: Path) -> _Report:
    try:
        return _Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise VcmbenchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise refuse(schema_problems(path.name, _Report, error)) from error


def _rung(rung: _Rung) -> Rung:
    result = rung.result
    if isinstance(result, _Failed):
        return Rung(n_sites=rung.n_sites, outcome=result.outcome)
    if not result.counts:
        return Rung(n_sites=rung.n_sites, outcome="a gate failed")
    return Rung(
        n_sites=rung.n_sites,
        outcome=result.outcome,
        median_s=result.near.median_s,
        atoms_per_s=result.near.atoms_per_s,
        peak_memory_bytes=result.memory.peak_bytes,
    )


def _require_machine(path: Path, name: str, leaderboard: Path, found: _Accelerator) -> None:
    machines = read_hardware(leaderboard).machines
    if name not in machines:
        raise bad_input("--hardware", "machine", found=name, expected=closest(name, machines))
    machine = machines[name]
    for field, value, expected in (
        ("kind", found.kind, machine.accelerator),
        ("name", found.name, machine.accelerator_name),
        ("threads", found.threads, machine.threads or found.threads),
    ):
        if value != expected:
            raise bad_input(
                path,
                f"accelerator.{field}",
                found=repr(value),
                expected=f"{expected!r}, that of {name}",
            )
