"""``result.json``: everything a score says, as a versioned schema.

Errors are in meV, energies in eV, lengths in Å, times in s. A section that could not be computed
is `Unavailable` and says why; numbers are never NaN or infinite.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from threadpoolctl import threadpool_info

from vcmbench.errors import VcmbenchError
from vcmbench.machine import available_cpus, own_version, processor_name

SCHEMA_VERSION: Final = 1
"""Version of the layout of ``result.json``."""

SCORE_SPEC: Final = 1
"""Version of the metrics' definitions: results of different specs are not comparable."""

_LIBRARIES = ("numpy", "scipy", "torch", "e3nn", "mace-torch")


class _Schema(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Unavailable(_Schema):
    """Stands in the place of a section that could not be computed."""

    reason: str
    """Why, in words."""


class Bounds(_Schema):
    """95 % confidence interval from resampling devices with replacement."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


# --- Hamiltonian ------------------------------------------------------------------------------


class GroupErrors(_Schema):
    """Error of one group of entries of the directed blocks.

    A value is null where the group has no entries in the range it refers to.
    """

    mae_mev: float | None
    """Mean |ΔH| over the entries of blocks closer than 8 Å, meV."""
    rmse_mev: float | None
    """Root mean square of the same entries, meV."""
    largest_mev: float | None
    """Largest |ΔH| of the same entries, meV."""
    n_entries: int
    """Number of these entries."""
    mae_full_mev: float | None
    """Mean |ΔH| over the whole support, meV."""
    rmse_full_mev: float | None
    """Root mean square over the whole support, meV."""
    largest_full_mev: float | None
    """Largest |ΔH| over the whole support, meV."""
    n_entries_full: int
    """Number of entries in the whole support."""


class DistanceShell(GroupErrors):
    """Error of the blocks of one distance shell; on-site blocks have distance 0."""

    low_ang: float
    """Lower boundary (included), Å."""
    high_ang: float
    """Upper boundary (excluded), Å."""


class LargestEntry(_Schema):
    """The worst entry and where it is."""

    error_mev: float
    """|ΔH|, meV."""
    device: str
    """Device id."""
    sites: tuple[int, int]
    """Sites i and j of its block."""
    shift: tuple[int, int, int]
    """Lattice shift R of site j."""
    pair: str
    """Species of the sites."""
    distance_ang: float
    """Distance of the sites, Å."""


class GaugeErrors(_Schema):
    """Error left when a constant shift of the energy zero is taken out: beside, never instead."""

    shift_mev: float
    """μ* = ⟨S, ΔH⟩/⟨S, S⟩ over all directed entries, meV; its root mean square over devices where
    several are pooled."""
    mae_mev: float
    """Mean |ΔH − μ*S| over the entries closer than 8 Å, meV; μ* is each device's own."""
    mae_full_mev: float
    """The same over the whole support, meV."""


class LayerShift(_Schema):
    """Local gauge shift of one layer normal to x."""

    x_ang: float
    """Centre of the layer, Å."""
    shift_mev: float
    """μ* of the directed blocks that start at the layer's sites, meV."""


class BlockSupport(_Schema):
    """How the predicted blocks cover the support."""

    missing_blocks: int
    """Directed blocks of the support that are not predicted; scored as zero."""
    extra_blocks: int
    """Directed blocks that are predicted outside the support; not scored."""
    extra_largest_mev: float
    """Largest |H| of these, meV."""


class Hermiticity(_Schema):
    """Residual of the prediction as delivered; what is scored is (H + H†)/2."""

    largest_mev: float
    """Largest |H − H†|, meV."""
    mean_mev: float
    """Mean |H − H†| over the entries of all predicted pairs, meV."""


class HamiltonianErrors(_Schema):
    """Errors of the entries of H of one device or of several pooled."""

    mae_mev: float
    """Mean |ΔH| over all scalar entries of the directed blocks (i→j, j→i and on-site) of sites
    closer than 8 Å, meV. The headline."""
    mae_full_mev: float
    """The same over the whole support (12 Å), meV."""
    mean_mev: float
    """Signed mean of ΔH = predicted − reference closer than 8 Å, meV."""
    rmse_mev: float
    """Root mean square of ΔH closer than 8 Å, meV."""
    rmse_full_mev: float
    """Root mean square of ΔH over the whole support, meV."""
    p99_mev: float
    """99th percentile of |ΔH| closer than 8 Å, meV, to 0.4 %."""
    p99_full_mev: float
    """99th percentile of |ΔH| over the whole support, meV, to 0.4 %."""
    largest: LargestEntry
    """Worst entry closer than 8 Å."""
    largest_full: LargestEntry
    """Worst entry of the whole support."""
    n_entries: int
    """Entries closer than 8 Å."""
    n_entries_full: int
    """Entries of the whole support."""
    by_site: dict[str, GroupErrors]
    """On-site and off-site blocks."""
    by_pair: dict[str, GroupErrors]
    """Element pairs, both directions; a star marks a ghost: ``"O*-Hf"``."""
    by_shell: dict[str, GroupErrors]
    """Pairs of angular momenta, either way round: ``"s-p"``."""
    by_distance: list[DistanceShell]
    """Shells of 1 Å."""
    by_ghost: dict[str, GroupErrors]
    """Blocks that involve a ghost and all others."""
    by_region: dict[str, GroupErrors]
    """Regions of both ends: ``"oxide"`` within one, ``"oxide/exchange-layer"`` across two; empty
    without regions."""
    gauge: GaugeErrors
    """What a wrong energy zero contributes."""
    support: BlockSupport
    """Missing and extra blocks."""
    hermiticity: Hermiticity
    """Hermiticity residual of the prediction."""


class DeviceHamiltonian(HamiltonianErrors):
    """Errors of one device."""

    layers: list[LayerShift]
    """Local gauge shift along x: errors of the electrostatic profile."""


class HamiltonianSection(HamiltonianErrors):
    """Errors of H, all devices' entries pooled, and device by device."""

    device_mean_mae_mev: float
    """Mean over devices of the MAE closer than 8 Å, meV."""
    mae_bounds_mev: Bounds | None
    """Interval of the pooled MAE; null for a single device."""
    skill: float | None
    """1 − MAE/MAE of the dataset's frozen Slater–Koster weights; null where there are none."""
    devices: dict[str, DeviceHamiltonian]
    """Every device by its id."""


# --- Spectrum ---------------------------------------------------------------------------------


class SpectrumErrors(_Schema):
    """Errors of the eigenvalues near the Fermi level."""

    mae_mev: float
    """k-weighted mean |Δε| of the states in the window, matched by absolute index, meV."""
    mean_mev: float
    """Signed mean of predicted − reference, meV."""
    largest_mev: float
    """Largest |Δε|, meV."""
    dos_distance: float
    """∫|ΔD|/∫D over the window, D the density of states with Gaussians of 50 meV standard
    deviation: 0 for equal ones, 2 for two of equal weight that do not overlap."""
    n_states: int
    """Reference states in the window, all k-points together."""


class SpectrumSection(SpectrumErrors):
    """Errors of the spectrum, averaged over devices, and device by device."""

    window_ev: tuple[float, float]
    """Window relative to the Fermi level, eV."""
    broadening_ev: float
    """Standard deviation of the Gaussians of the density of states, eV."""
    bounds_mev: Bounds | None
    """Interval of the mean; null for a single device."""
    devices: dict[str, SpectrumErrors | Unavailable]
    """Every device by its id."""


# --- Transmission -----------------------------------------------------------------------------


class TransmissionErrors(_Schema):
    """Agreement of T(E), k-averaged before the logarithm, with ε = 1e-10."""

    log10_mae: float
    """Mean over energies of |Δlog10(T + ε)|, decades. The headline."""
    log10_signed_mean: float
    """Mean of Δlog10(T + ε), predicted − reference, decades."""
    log10_p95: float
    """95th percentile of |Δlog10(T + ε)|, decades."""
    integrated_difference: float
    """∫|ΔT| dE/∫T dE."""
    conductance_log10_error: float
    """|Δlog10(G/G0 + ε)| at 300 K and μ = E_F, decades."""
    current_log10_error: float
    """Mean over V = 0.05 … 1 V of |Δlog10(I/(G0 V) + ε)|, decades."""
    wasserstein_ev: float | None
    """Distance between the normalised cumulative transmissions, eV; null where one is zero."""
    shift_ev: float
    """Shift of the predicted T(E) along E, within ±0.3 eV, that agrees best with the reference.
    Averaged over devices with its sign: what they have in common."""
    shifted_log10_mae: float
    """Mean of |Δlog10(T + ε)| after that shift, over the energies that both then have, decades."""


class Floor(_Schema):
    """Statistics of |Δlog10(T + ε)| that no model is to blame for, decades."""

    mean: float
    """Mean over energies."""
    p95: float
    """95th percentile."""
    max: float
    """Largest."""
    energies: int
    """Number of energies it was evaluated at."""


class NoiseFloor(_Schema):
    """Floors of the transmission score: differences below them mean nothing."""

    solver: Floor | None
    """T evaluated at two different layers of the same device."""
    energy_grid: Floor | None
    """The reference against itself interpolated from every second energy."""
    rounding: Floor | None
    """Fixed-point storage of H and S."""
    support: Floor | None
    """Entries beyond 12 Å."""
    cutoff_8A: Floor | None  # noqa: N815
    """H truncated at 8 Å with S whole: what a perfect model of that cutoff scores."""
    cutoff_10A: Floor | None  # noqa: N815
    """H truncated at 10 Å with S whole."""
    label_noise: Floor | None
    """Differences between DFT runs of the same device with other settings."""


class TransmissionGates(_Schema):
    """Checks on T itself; a score that fails one does not count."""

    lowest_transmission: float
    """Smallest T(k, E); at least 0."""
    channel_excess: float
    """Largest T minus the number of open channels; at most 1e-6."""
    meeting_error: float
    """Largest relative difference of T between two layers; at most 1e-9."""
    negative_gamma: float
    """Most negative eigenvalue of a lead's Γ over the largest entry of Σ; at most 1e-11."""
    passed: bool
    """Whether all hold."""


class DeviceTransmission(TransmissionErrors):
    """Agreement of one device with the contacts from DFT."""

    all_predicted: TransmissionErrors | Unavailable
    """The same with everything predicted but the lead."""
    noise_floor: NoiseFloor
    """Floors of this device."""
    gates: TransmissionGates
    """Checks on the predicted T."""
    conductance_g0: float
    """Conductance of the reference at 300 K and μ = E_F, in units of G0 = 2e²/h."""
    predicted_conductance_g0: float
    """That of the predicted device: ratios of devices (on/off) follow from the two."""
    n_energies: int
    """Number of energies."""
    n_kpoints: int
    """Number of k-points."""


class TransmissionSection(TransmissionErrors):
    """Agreement of T averaged over devices ("DFT contacts"), and device by device."""

    all_predicted: TransmissionErrors | Unavailable
    """The same with everything predicted but the lead."""
    noise_floor: NoiseFloor
    """Floors, averaged over devices."""
    gates: TransmissionGates
    """Worst value of every check over all devices."""
    log10_mae_bounds: Bounds | None
    """Interval of `log10_mae`; null for a single device."""
    energy_stride: int
    """1 where all energies of the release were evaluated; more marks a quick score."""
    devices: dict[str, DeviceTransmission | Unavailable]
    """Every device by its id."""


# --- Physicality ------------------------------------------------------------------------------


class Residual(_Schema):
    """How far a prediction breaks a symmetry, relative to the largest |H|."""

    largest: float
    """max|ΔH|/max|H|."""
    mean: float
    """mean|ΔH|/max|H|."""


class Equivariance(_Schema):
    """Residuals of the model itself on a cut-out of a device."""

    rotation: Residual
    """Random proper rotation of positions and cell."""
    inversion: Residual
    """Inversion of positions and cell."""
    permutation: Residual
    """Random order of the sites."""
    translation: Residual
    """Rigid shift by a vector that is no lattice vector."""
    reimaging: Residual
    """Sites moved by lattice vectors, each by its own."""
    n_sites: int
    """Size of the cut-out."""
    device: str
    """Device it was cut from."""
    seed: int
    """Seed of the random operations."""

    @property
    def largest(self) -> float:
        """Largest of all residuals."""
        names = ("rotation", "inversion", "permutation", "translation", "reimaging")
        return max(getattr(self, name).largest for name in names)


class PhysicalitySection(_Schema):
    """Symmetries of the prediction and of the model."""

    hermiticity: Hermiticity
    """Worst of all devices."""
    equivariance: Equivariance | Unavailable
    """Symmetries that need the model; unavailable for predictions alone."""


# --- Throughput -------------------------------------------------------------------------------


class Timing(_Schema):
    """Repeated predictions of one part of H."""

    cutoff_ang: float
    """Blocks that are delivered: sites closer than this, Å."""
    median_s: float
    """Median wall time of a prediction, s."""
    iqr_s: float
    """Interquartile range, s."""
    fastest_s: float
    """Shortest, s."""
    n_repeats: int
    """Timed predictions, each of other (jittered) positions."""
    n_warmup: int
    """Predictions before the times were stable, the cold one included."""
    stable: bool
    """Whether the median of the last three changed by less than 5 % before timing began."""
    atoms_per_s: float
    """Sites (ghosts included) per second of the median."""
    edges_per_s: float
    """Directed pairs of different sites (or images) per second."""
    nonzeros_per_s: float
    """Non-zero reference entries of directed blocks per second."""


class ThroughputGates(_Schema):
    """Conditions under which the throughput counts."""

    mae_mev: float
    """MAE of the matrix that the timed code delivered, closer than 8 Å, meV."""
    accuracy: bool
    """Whether it is within 1 % of the scored MAE."""
    equivariance_residual: float | None
    """Largest equivariance residual."""
    equivariance: bool
    """Whether it is below 1e-4."""

    @property
    def passed(self) -> bool:
        """Whether both hold."""
        return self.accuracy and self.equivariance


class ThroughputSection(_Schema):
    """Positions in host memory → predicted H, half stored, float32, in host memory."""

    accelerator: Literal["cpu", "cuda"]
    """What computed; rankings never mix them."""
    accelerator_name: str
    """Model name of the processor."""
    threads: int
    """Threads of BLAS, OpenMP and torch."""
    device: str
    """Device that was predicted."""
    n_sites: int
    """Its sites, ghosts included."""
    n_edges: int
    """Its directed edges closer than 8 Å."""
    n_nonzeros: int
    """Its non-zero reference entries of directed blocks closer than 8 Å."""
    atoms_per_s: float
    """Sites per second for the 8 Å part. The headline."""
    edges_per_s: float
    """Directed edges per second for the 8 Å part."""
    nonzeros_per_s: float
    """Non-zero entries per second for the 8 Å part."""
    peak_memory_bytes: int
    """Peak increment of the resident memory over that before the first prediction (cpu), or peak
    of the allocator (cuda), bytes."""
    peak_memory_kind: Literal["resident increment", "cuda allocator"]
    """Which of the two."""
    cold_start_s: float
    """First prediction, s."""
    near: Timing
    """The 8 Å part."""
    full: Timing
    """The whole support."""
    stages_s: dict[str, float] | None
    """Median time of each stage that the model reports, s, for the 8 Å part."""
    gates: ThroughputGates
    """Whether the figures count."""
    counts: bool
    """Whether all gates hold."""


# --- The whole --------------------------------------------------------------------------------


class ModelInfo(_Schema):
    """What was scored."""

    name: str
    """Name of the baseline, model directory, callable or predictions store."""
    kind: Literal["baseline", "directory", "callable", "predictions"]
    """How it was given."""
    version: str | None = None
    """Version on its card."""
    digest: str | None = None
    """SHA-256 of its weights."""
    cutoff_ang: float | None = None
    """Its own cutoff, Å."""
    n_parameters: int | None = None
    """Fitted numbers."""


class DatasetInfo(_Schema):
    """What it was scored on."""

    name: str
    """Dataset."""
    version: str
    """Its immutable version."""
    digest: str
    """SHA-256 over the content digests of its devices."""
    split: str
    """Split."""
    part: str
    """Part of the split."""
    devices: list[str]
    """Devices that were scored."""


class StageRecord(_Schema):
    """Cost of one stage of the evaluation."""

    name: str
    """Stage."""
    wall_s: float
    """Wall time, s."""
    peak_memory_bytes: int
    """Largest resident memory of the process meanwhile, bytes."""
    cached: bool
    """Whether the result was found rather than computed."""


class Environment(_Schema):
    """Where and with what it was computed."""

    vcmbench: str
    """Version of vcmbench."""
    python: str
    """Version of Python."""
    libraries: dict[str, str]
    """Versions of the numerical libraries that are installed."""
    platform: str
    """Operating system and machine."""
    processor: str
    """Model name of the CPU."""
    n_cpus: int
    """CPUs that this process may use."""
    threads: dict[str, int]
    """Threads by BLAS or OpenMP library."""
    stages: list[StageRecord]
    """Time and memory of each stage."""

    @classmethod
    def collect(cls, stages: Sequence[StageRecord] = ()) -> Environment:
        """Describe this process."""
        found = {}
        for name in _LIBRARIES:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        threads: dict[str, int] = {}
        for pool in threadpool_info():
            name = f"{pool['internal_api']} {pool.get('version') or ''}".strip()
            threads[name] = max(threads.get(name, 0), int(pool["num_threads"]))
        return cls(
            vcmbench=own_version(),
            python=platform.python_version(),
            libraries=found,
            platform=f"{platform.system()} {platform.release()} {platform.machine()}",
            processor=processor_name(),
            n_cpus=available_cpus(),
            threads=threads,
            stages=list(stages),
        )


class Result(_Schema):
    """One evaluation of one model on one part of one dataset."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this layout."""
    score_spec: Literal[1] = SCORE_SPEC
    """Version of the metrics; different specs never share a table."""
    model: ModelInfo
    """What was scored."""
    dataset: DatasetInfo
    """What it was scored on."""
    hamiltonian: HamiltonianSection | Unavailable
    """Errors of the entries of H."""
    spectrum: SpectrumSection | Unavailable
    """Errors of the eigenvalues near the Fermi level."""
    transmission: TransmissionSection | Unavailable
    """Agreement of T(E), conductance and current."""
    physicality: PhysicalitySection | Unavailable
    """Symmetries."""
    throughput: ThroughputSection | Unavailable
    """Speed and memory."""
    environment: Environment
    """Where and with what it was computed."""

    def to_json(self) -> str:
        """Return the text of ``result.json``."""
        return self.model_dump_json(indent=2) + "\n"


def read_result(path: Path) -> Result:
    """Read ``result.json``.

    Raises
    ------
    VcmbenchError
        If the file is no valid result of this schema version.
    """
    try:
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VcmbenchError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise VcmbenchError(f"{path}: {field}: {first['msg']}") from error


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``result.json``, as published."""
    schema = Result.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """Text of the published schema file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
