"""torch and NVML of a board that is not there: they count time by what is asked of them."""

from __future__ import annotations

from types import SimpleNamespace

GIB = 2**30


class NVMLError(Exception):
    """As pynvml raises it."""


class FakeNvml:
    """``pynvml`` with one board that draws 100 W idle and 500 W while something is predicted.

    Parameters
    ----------
    refused : set of str
        Functions that this driver does not support.
    """

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, clock, refused: set[str] = frozenset()) -> None:
        self.clock = clock
        self.refused = refused
        self.busy_s = 0.0
        self.used = 2 * GIB

    def __getattribute__(self, name: str):
        if name in object.__getattribute__(self, "refused"):
            raise NVMLError("Not Supported")
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"board {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-12345678-1234-1234-1234-123456789abc":
            raise NVMLError("Not Found")
        return "board by uuid"

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> str:
        if address != "00000000:0A:00.0":
            raise NVMLError("Not Found")
        return "board by address"

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.1"

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return {1: 1980, 2: 3201}[kind]

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        return 1980

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        return 45

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return 0x4

    def nvmlDeviceGetEccMode(self, handle: str) -> list[int]:
        return [1, 1]

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return [0, 0]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[object]:
        return [object()]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(used=self.used, total=140 * GIB)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return round(1e3 * (100.0 * self.clock() + 400.0 * self.busy_s))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 100_000


def fake_torch(memory: SimpleNamespace) -> SimpleNamespace:
    """torch that sees one board; `memory` holds ``now``, ``peak`` and ``reserved`` in bytes."""
    properties = SimpleNamespace(
        total_memory=140 * GIB,
        major=9,
        minor=0,
        uuid="12345678-1234-1234-1234-123456789abc",
        pci_domain_id=0,
        pci_bus_id=10,
        pci_device_id=0,
    )

    def reset() -> None:
        memory.peak = memory.now

    cuda = SimpleNamespace(
        is_available=lambda: True,
        current_device=lambda: 0,
        get_device_name=lambda: "Toy board",
        get_device_properties=lambda _index: properties,
        synchronize=lambda: None,
        memory_allocated=lambda: memory.now,
        max_memory_allocated=lambda: memory.peak,
        max_memory_reserved=lambda: memory.reserved,
        reset_peak_memory_stats=reset,
    )
    matmul = SimpleNamespace(allow_tf32=False)
    return SimpleNamespace(
        cuda=cuda,
        Tensor=type("Tensor", (), {}),  # Others ask whether something is one.
        backends=SimpleNamespace(
            cuda=SimpleNamespace(matmul=matmul), cudnn=SimpleNamespace(allow_tf32=True)
        ),
        version=SimpleNamespace(cuda="13.0"),
        get_num_threads=lambda: 1,
        set_num_threads=lambda _number: None,
        get_num_interop_threads=lambda: 1,
        get_float32_matmul_precision=lambda: "highest",
        get_default_dtype=lambda: "torch.float32",
        are_deterministic_algorithms_enabled=lambda: False,
    )
