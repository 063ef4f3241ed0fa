"""What the driver says of one board (NVML): identity, clocks, power, memory, energy.

Every reading stands for itself: one that a driver, a container or a partition of the board refuses
is `Unavailable` with the reason, and nothing else is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, TypeVar

from vcmbench.scores.result import Unavailable
from vcmbench.throughput.document import BoardFacts

T = TypeVar("T")

SAMPLE_S: Final = 0.02
"""Time between two samples of the power where the board has no counter of energy, s."""

Method = Literal["energy counter", "sampled power"]


def reading(read: Callable[[], T]) -> T | Unavailable:
    """Return a reading, or why there is none."""
    try:
        return read()
    except Exception as error:
        return Unavailable(reason=f"{type(error).__name__}: {error}")


class Nvml:
    """One board as NVML sees it.

    Parameters
    ----------
    library : module
        ``pynvml`` (the package nvidia-ml-py), initialised.
    handle : object
        Its handle of the board.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._nvml = library
        self._handle = handle

    @classmethod
    def find(cls, torch: Any) -> Nvml | Unavailable:
        """Return the board that torch computes on, or why NVML does not tell."""

        def open_board() -> Nvml:
            import pynvml

            pynvml.nvmlInit()
            return cls(pynvml, _handle(pynvml, torch))

        return reading(open_board)

    def facts(self) -> BoardFacts:
        """Describe the board as it is now: call it while it works, for the clocks."""
        nvml, handle = self._nvml, self._handle

        def throttled() -> str:
            read = (
                getattr(
                    nvml,
                    "nvmlDeviceGetCurrentClocksEventReasons",
                    None,
                )
                or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
            )
            return hex(read(handle))

        return BoardFacts(
            driver=reading(lambda: _text(nvml.nvmlSystemGetDriverVersion())),
            sm_clock_mhz=reading(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            largest_sm_clock_mhz=reading(
                lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
            ),
            memory_clock_mhz=reading(
                lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            power_cap_w=reading(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3),
            temperature_c=reading(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            clock_event_reasons=reading(throttled),
            ecc=reading(lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0])),
            mig=reading(lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0])),
            other_processes=reading(
                lambda: max(0, len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)) - 1)
            ),
        )

    def used_bytes(self) -> int:
        """Memory in use on the board, whoever uses it."""
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def energy_j(self) -> float:
        """Energy of the board since the driver was loaded, J."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def power_w(self) -> float:
        """Power that the board draws, W."""
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3


@dataclass
class Window:
    """Energy of the board between two moments.

    Attributes
    ----------
    energy_j : float
        J.
    seconds : float
        s.
    """

    energy_j: float = 0.0
    seconds: float = 0.0

    @property
    def power_w(self) -> float:
        """Mean power, W."""
        return self.energy_j / self.seconds


@dataclass
class EnergyMeter:
    """Measures energy with the board's counter, or by samples of its power where it has none.

    Parameters
    ----------
    board : Nvml
        The board.
    method : {"energy counter", "sampled power"}
        How.
    """

    board: Nvml
    method: Method = field(init=False)

    def __post_init__(self) -> None:
        counted = reading(self.board.energy_j)
        self.method = "sampled power" if isinstance(counted, Unavailable) else "energy counter"
        if self.method == "sampled power":
            self.board.power_w()  # If there is no power either, there is no meter.

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Measure the energy of the block."""
        found = Window()
        measure = self._counted if self.method == "energy counter" else self._sampled
        with measure(found):
            yield found

    @contextmanager
    def _counted(self, window: Window) -> Iterator[None]:
        start, begin = time.perf_counter(), self.board.energy_j()
        yield
        window.energy_j = self.board.energy_j() - begin
        window.seconds = time.perf_counter() - start

    @contextmanager
    def _sampled(self, window: Window) -> Iterator[None]:
        done = threading.Event()
        samples: list[tuple[float, float]] = []

        def sample() -> None:
            while True:
                samples.append((time.perf_counter(), self.board.power_w()))
                if done.wait(SAMPLE_S):
                    break
            samples.append((time.perf_counter(), self.board.power_w()))

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        steps = pairwise(samples)
        window.energy_j = sum((t - s) * (p + q) / 2 for (s, p), (t, q) in steps)
        window.seconds = samples[-1][0] - samples[0][0]


def _handle(nvml: Any, torch: Any) -> Any:
    """NVML's handle of torch's current board: by UUID, else by PCI address, else the only one."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())

    def by_uuid() -> Any:
        uuid = str(properties.uuid)
        return nvml.nvmlDeviceGetHandleByUUID(uuid if "-" in uuid[:4] else f"GPU-{uuid}")

    def by_address() -> Any:
        address = (
            f"{properties.pci_domain_id:08X}:{properties.pci_bus_id:02X}:"
            f"{properties.pci_device_id:02X}.0"
        )
        return nvml.nvmlDeviceGetHandleByPciBusId(address)

    for found in (reading(by_uuid), reading(by_address)):
        if not isinstance(found, Unavailable):
            return found
    n_boards = nvml.nvmlDeviceGetCount()
    if n_boards != 1:
        raise LookupError(f"cannot tell which of {n_boards} boards torch uses")
    return nvml.nvmlDeviceGetHandleByIndex(0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
