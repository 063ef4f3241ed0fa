"""Machines on which the maintainers measure throughput: rankings are per machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from vcmbench.documents import Document
from vcmbench.leaderboard.problems import refuse, schema_problems
from vcmbench.leaderboard.strict_yaml import read_strict_yaml
from vcmbench.release.manifest import Name

HARDWARE: Final = "hardware.yml"


class Machine(Document):
    """One class of hardware."""

    label: str
    """Name in tables."""
    accelerator: Literal["cpu", "cuda"]
    accelerator_name: str
    """As reports name it."""
    threads: PositiveInt | None = None
    """Threads of BLAS, OpenMP and torch; needed where the CPU computes, any if None."""

    @model_validator(mode="after")
    def _threads_of_a_cpu(self) -> Self:
        if self.accelerator == "cpu" and self.threads is None:
            raise ValueError("threads for a CPU")
        return self


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
