"""Wall time and peak memory of the stages of a run."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes
    ----------
    name : str
    wall_s : float
        Wall time, s.
    peak_memory_bytes : int
        Largest resident memory of the process while the stage ran.
    cached : bool
        Whether its result was found rather than computed.
    """

    name: str
    wall_s: float
    peak_memory_bytes: int
    cached: bool


@dataclass
class Stages:
    """Stages of a run, in order."""

    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def measure(self, name: str, *, cached: bool = False) -> Iterator[None]:
        """Time the block and add it as a stage."""
        reset_peak_memory()
        start = time.perf_counter()
        yield
        self.stages.append(Stage(name, time.perf_counter() - start, peak_memory_bytes(), cached))


def reset_peak_memory() -> None:
    """Restart the kernel's high-water mark of this process, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Peak resident memory since the last reset (Linux) or since the start of the process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
