"""What this process may use and uses: processors, threads, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info


def return_free_memory() -> None:
    """Give memory that was freed back to the system, so that later use of it is seen (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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


def available_bytes() -> float | None:
    """Memory that the system can still give, None where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return None


def allowed_threads() -> int:
    """Threads that BLAS and OpenMP would take, so that ``OMP_NUM_THREADS`` is respected."""
    return max((pool["num_threads"] for pool in threadpool_info()), default=available_cpus())


def own_version() -> str:
    """Version of vcmbench as installed; a source tree that was only put on the path has none."""
    try:
        return version("vcmbench")
    except PackageNotFoundError:
        return "not installed"


def processor_name() -> str:
    """Model name of the CPU, as far as the system tells."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def idlest_cpus(number: int) -> list[int]:
    """CPUs that this process may use and that have most time left just now (Linux)."""
    allowed = sorted(os.sched_getaffinity(0))
    before = _idle_ticks()
    time.sleep(0.3)
    after = _idle_ticks()
    idle = {cpu: after.get(cpu, 0) - before.get(cpu, 0) for cpu in allowed}
    return sorted(sorted(allowed, key=lambda cpu: -idle[cpu])[:number])


def _idle_ticks() -> dict[int, int]:
    """Time that each CPU was idle since the start, as far as the system tells."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
            name, *ticks = line.split() or [""]
            if name.startswith("cpu") and name != "cpu":
                found[int(name[3:])] = int(ticks[3])
    return found


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
