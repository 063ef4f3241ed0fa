"""Machines on which the maintainers measure throughput: rankings are per machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, PositiveInt, ValidationError

from vcmbench.documents import Document
from vcmbench.errors import bad_input, unknown_name
from vcmbench.leaderboard.problems import refuse, schema_problems
from vcmbench.leaderboard.strict_yaml import read_strict_yaml
from vcmbench.release.manifest import Name
from vcmbench.scores.result import ThroughputSection

HARDWARE: Final = "hardware.yml"


class Machine(Document):
    """One class of hardware."""

    label: str
    """Name in tables."""
    accelerator: Literal["cpu", "cuda"]
    accelerator_name: str
    """As results name it."""
    threads: PositiveInt
    """Threads of BLAS, OpenMP and torch."""


class Hardware(Document):
    """``leaderboard/hardware.yml``."""

    schema_version: Literal[1]
    machines: dict[Name, Machine] = Field(min_length=1)


def read_hardware(leaderboard: Path) -> Hardware:
    """Read the list of machines."""
    path = leaderboard / HARDWARE
    try:
        return Hardware.model_validate(read_strict_yaml(path))
    except ValidationError as error:
        raise refuse(schema_problems(HARDWARE, Hardware, error)) from error


def require_machine(leaderboard: Path, name: str, found: ThroughputSection) -> None:
    """Raise unless a throughput was measured on the machine of that name, and counts."""
    machines = read_hardware(leaderboard).machines
    if name not in machines:
        raise unknown_name("machine of the leaderboard", name, machines)
    for field in ("accelerator", "accelerator_name", "threads"):
        value, expected = getattr(found, field), getattr(machines[name], field)
        if value != expected:
            raise bad_input(
                "throughput", field, found=repr(value), expected=f"{expected!r}, that of {name}"
            )
    if not found.counts:
        raise bad_input(
            "throughput", "counts", found="a gate that failed", expected="accuracy and equivariance"
        )
