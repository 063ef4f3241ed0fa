"""``throughput.json``: the throughput of one model on one accelerator, as a versioned schema.

Lengths in Å, times in s, memory in bytes. What could not be read is `Unavailable` and says why.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from vcmbench.documents import Document
from vcmbench.scores.result import (
    SCORE_SPEC,
    DatasetInfo,
    Environment,
    ModelInfo,
    Timing,
    Unavailable,
)

SCHEMA_VERSION: Final = 1
"""Version of the layout of ``throughput.json``."""


class _Schema(Document):
    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)


class BoardFacts(_Schema):
    """The board as the driver described it right after a timed prediction."""

    driver: str | Unavailable
    """Version of the driver."""
    sm_clock_mhz: float | Unavailable
    """Clock of the multiprocessors, MHz."""
    largest_sm_clock_mhz: float | Unavailable
    """Their largest clock, MHz."""
    memory_clock_mhz: float | Unavailable
    """Clock of the memory, MHz."""
    power_cap_w: float | Unavailable
    """Enforced power limit, W."""
    temperature_c: float | Unavailable
    """Temperature, °C."""
    clock_event_reasons: str | Unavailable
    """NVML's bit mask of what holds the clocks down; 0x0 is nothing, 0x1 an idle board."""
    ecc: bool | Unavailable
    """Whether the memory corrects errors."""
    mig: bool | Unavailable
    """Whether the board is partitioned."""
    other_processes: int | Unavailable
    """Other processes that compute on it."""


class Accelerator(_Schema):
    """What computed, and how."""

    kind: Literal["cpu", "cuda"]
    """Rankings never mix them."""
    name: str
    """Model name of the board or of the processor."""
    memory_bytes: int | Unavailable
    """Memory of the board, or of the machine when the measurement began."""
    compute_capability: str | None
    """CUDA compute capability of the board."""
    threads: int
    """Threads of BLAS, OpenMP and torch."""
    cpus: list[int] | Unavailable
    """CPUs that the process was bound to."""
    load_average: float | Unavailable
    """Processes that wanted a CPU in the minute before."""
    flags: dict[str, str]
    """Precision and determinism flags of torch, its CUDA and cuDNN versions; empty without it."""
    variables: dict[str, str]
    """Environment variables that change speed or precision."""
    compiled_graphs: int | None
    """Graphs that torch.compile made; null where it was not used."""
    used: bool
    """Whether predictions allocated memory on the board (torch's allocator); true on the CPU."""
    reported: dict[str, str] | None
    """What the model itself says about how it ran (``execution()``): compile mode, back end."""
    board: BoardFacts | Unavailable
    """Readings of the driver."""


class Latency(Timing):
    """Repeated predictions, cold start and tail."""

    cold_s: float
    """First prediction of the process, s."""
    p90_s: float
    """90th percentile, s; the 50th is the median."""


class Memory(_Schema):
    """Peak memory while predicting the 8 Å part."""

    allocator_peak_bytes: int | Unavailable
    """Most memory of tensors on the board (torch's allocator)."""
    allocator_reserved_bytes: int | Unavailable
    """Most memory that this allocator held."""
    board_used_bytes: int | Unavailable
    """Most memory in use on the whole board, read after each prediction (NVML)."""
    board_idle_bytes: int | Unavailable
    """Memory in use on it before the first prediction, the model loaded (NVML)."""
    host_peak_bytes: int
    """Peak increment of the resident memory over that before the first prediction."""


class Energy(_Schema):
    """Energy of the whole board, its idle power subtracted; not that of the host."""

    scope: Literal["board"] = "board"
    """What is measured."""
    method: Literal["energy counter", "sampled power"]
    """How."""
    joules_per_atom: float
    """(Energy − idle power × time)/(predictions × sites), J."""
    power_w: float
    """Mean power in the window, W."""
    idle_power_w: float
    """Mean power before the first prediction, the model on the board, W."""
    window_s: float
    """Length of the window, s."""
    n_predictions: int
    """Predictions in it."""


class Gates(_Schema):
    """Conditions under which figures count, checked by the process that was timed."""

    mae_mev: float
    """MAE of the device itself as the timed code delivers it, closer than 8 Å, meV."""
    scored_mae_mev: float
    """MAE of `predict`, which the scores use, meV."""
    accuracy: bool
    """Whether the two agree within 1 %."""
    equivariance_residual: float
    """Largest residual of the timed code under rotation, inversion, permutation, translation and
    re-imaging of a cut-out of the device."""
    equivariance: bool
    """Whether it is below 1e-4."""
    copies_residual: float | None
    """Largest difference of an entry of the supercell from the device's, relative to the largest;
    null where blocks are missing."""
    copies: bool
    """Whether it is below 1e-4; true for the device itself."""

    @property
    def passed(self) -> bool:
        """Whether all hold."""
        return self.accuracy and self.equivariance and self.copies


class Measured(_Schema):
    """One structure, one process."""

    outcome: Literal["measured"] = "measured"
    """The structure fits."""
    n_sites: int
    """Sites, ghosts included."""
    n_edges: int
    """Directed edges closer than 8 Å."""
    n_nonzeros: int
    """Non-zero reference entries of directed blocks closer than 8 Å."""
    load_s: float
    """Import and loading of the model, s."""
    near: Latency
    """The 8 Å part: the headline."""
    stages_s: dict[str, float] | None
    """Median time of each stage that the model reports, and of the delivery, s."""
    memory: Memory
    """Peak memory."""
    energy: Energy | Unavailable
    """Energy of the board."""
    gates: Gates
    """Checks."""
    counts: bool
    """Whether all gates hold and the accelerator was used."""
    accelerator: Accelerator
    """What computed."""
    environment: Environment
    """Versions, system, processor."""


class Devices(Measured):
    """One device (latency) and a test set (offline)."""

    model: ModelInfo
    """What was timed."""
    device: str
    """Device of the latency."""
    full: Latency
    """The whole support."""
    offline: Latency
    """All devices back to back: one prediction of each, rates over all of them."""
    offline_devices: list[str]
    """Which."""
    mae_mev_by_device: dict[str, float]
    """MAE of each device as the timed code delivers it, closer than 8 Å, meV."""


class Failed(_Schema):
    """No figures, and why."""

    outcome: Literal["out of memory", "timed out", "crashed", "refused", "skipped"]
    """What happened."""
    memory: Literal["board", "host"] | None = None
    """Which memory ran out."""
    error: str
    """In words."""


class Rung(_Schema):
    """One size of the ladder."""

    n_sites: int
    """Sites of the supercell."""
    copies: tuple[int, int]
    """Copies of the device in y and z."""
    result: Annotated[Measured | Failed, Field(discriminator="outcome")]
    """Figures, or why there are none."""


class Slope(_Schema):
    """Least-squares line of ln(median time) over ln(sites)."""

    slope: float
    """1 is linear scaling."""
    standard_error: float | None
    """Of the slope, from the scatter about the line; null for two sizes."""
    sizes: list[int]
    """Sites of the structures it goes through."""


class Ladder(_Schema):
    """Time and memory over the number of sites."""

    device: str
    """Device that was repeated."""
    rungs: list[Rung]
    """Sizes, ascending."""
    slope: Slope | Unavailable
    """Over all measured sizes."""
    slope_large: Slope | Unavailable
    """Over those of 2,000 sites and more, where fixed costs matter less."""
    largest_that_fits: int | None
    """Sites of the largest structure that was measured."""
    smallest_that_does_not: int | None
    """Sites of the smallest one that ran out of memory; null if none did."""


class Settings(_Schema):
    """Choices of the protocol that a user can make."""

    threads: int | None
    """Threads asked for; null is all CPUs."""
    sizes: list[int]
    """Sizes asked for."""
    max_seconds_per_size: float
    """Time for warm-up and predictions of one size, the cold one apart, s."""
    seed: int
    """Seed of the displacements."""
    jitter_ang: float
    """Standard deviation of the displacements of each prediction, Å."""


class Throughput(_Schema):
    """Throughput of one model."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this layout."""
    score_spec: Literal[1] = SCORE_SPEC
    """Version of the protocol; different specs never share a table."""
    dataset: DatasetInfo
    """Where the structures come from."""
    settings: Settings
    """Choices."""
    devices: Annotated[Devices | Failed, Field(discriminator="outcome")]
    """Latency and offline throughput."""
    ladder: Ladder
    """Sizes."""

    def to_json(self) -> str:
        """Return the text of ``throughput.json``."""
        return self.model_dump_json(indent=2) + "\n"
