"""Score one model on devices of a dataset: the order of the stages and what each depends on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from vcmbench import plots
from vcmbench.blocks import BlockMatrix
from vcmbench.device import Device, TransportReference, contact_blocks
from vcmbench.errors import VcmbenchError
from vcmbench.kept_sweep import Grid, kept_transmission
from vcmbench.kpoints import monkhorst_pack
from vcmbench.models import LoadedModel, load_model
from vcmbench.models.loader import known_baselines
from vcmbench.partition import block_parts
from vcmbench.release import DEFAULT_SPLIT, PartitionSplit, Release, find_release
from vcmbench.resources import cache_folder
from vcmbench.scores import hamiltonian, physicality, spectrum, throughput
from vcmbench.scores import transmission as agreement
from vcmbench.scores.result import (
    SCORE_SPEC,
    DatasetInfo,
    DeviceTransmission,
    Environment,
    Equivariance,
    ModelInfo,
    Result,
    SpectrumErrors,
    ThroughputSection,
    Unavailable,
)
from vcmbench.stages import Stages
from vcmbench.store.content import atomic_file, read_content
from vcmbench.store.predictions import read_predictions, write_predictions
from vcmbench.structure import FloatArray
from vcmbench.transport import Lead, Transmission
from vcmbench.transport.observables import conductance_g0

QUICK_STRIDE = 4
"""`--quick` evaluates T at every fourth energy."""
REFERENCE_MODEL = "slater-koster"
"""Baseline whose error is the unit of the skill."""

Progress = Callable[[str, int, int], None]

_Partition = tuple[PartitionSplit, str]
_ONLY_A_PART = "a part of one device is scored: it needs all of its blocks"


@dataclass(frozen=True)
class Request:
    """What to evaluate; the fields are the options of ``vcmbench evaluate``."""

    model: str
    dataset: str = "vcm-demo"
    selection: str = "test"
    devices: tuple[str, ...] | None = None
    accelerator: Literal["cpu", "cuda"] = "cpu"
    quick: bool = False
    output: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """A result and the folder it was written to."""

    result: Result
    folder: Path


@dataclass
class _Scores:
    """What has been scored so far."""

    errors: list[hamiltonian.DeviceErrors] = field(default_factory=list)
    reference_errors: list[hamiltonian.DeviceErrors] = field(default_factory=list)
    spectra: dict[str, SpectrumErrors | Unavailable] = field(default_factory=dict)
    transmissions: dict[str, DeviceTransmission | Unavailable] = field(default_factory=dict)


def run(request: Request, progress: Progress = lambda _stage, _done, _total: None) -> Evaluation:
    """Evaluate a model and write ``result.json``, plots and predictions.

    Parameters
    ----------
    request : Request
        Model, data and options.
    progress : callable
        Called with the name of a stage, finished and all of its steps.

    Returns
    -------
    Evaluation

    Raises
    ------
    VcmbenchError
        If the model, the dataset or a prediction is unusable.
    """
    release = find_release(request.dataset)
    partition = None if request.devices else _partition(release, request.selection)
    if partition is not None:
        device_ids: tuple[str, ...] = (partition[0].device,)
    else:
        device_ids = request.devices or release.device_ids(request.selection)
    if not device_ids:
        raise VcmbenchError(f"{release.label}: {request.selection!r} holds no device")
    model = load_model(request.model, accelerator=request.accelerator)
    folder = request.output or Path("results") / f"{model.name}-{release.manifest.name}"
    evaluator = _Evaluator(request, release, model, folder, progress, partition)
    return Evaluation(evaluator.run(device_ids), folder)


def _partition(release: Release, selection: str) -> _Partition | None:
    """Split and part that ``SPLIT:PART`` names, if it is a partition of one device."""
    name, _, part = selection.rpartition(":")
    split = release.split(name or DEFAULT_SPLIT)
    if not isinstance(split, PartitionSplit):
        return None
    split.ranges(part)
    return split, part


class _Evaluator:
    """One evaluation: holds what every stage needs."""

    def __init__(
        self,
        request: Request,
        release: Release,
        model: LoadedModel,
        folder: Path,
        progress: Progress,
        partition: _Partition | None,
    ) -> None:
        self.request = request
        self.partition = partition
        self.release = release
        self.model = model
        self.folder = folder
        self.progress = progress
        self.stages = Stages(folder / "stages")
        self.reference_stages = Stages(cache_folder() / "reference")
        self.stride = QUICK_STRIDE if request.quick else 1

    def run(self, device_ids: tuple[str, ...]) -> Result:
        scores = _Scores()
        first: tuple[Device, float] | None = None
        for index, device_id in enumerate(device_ids):
            self.progress("devices", index, len(device_ids))
            with self.stages.measure(f"load {device_id}"):
                device = self.release.device(device_id)
            mae_mev = self._score(device, scores)
            first = first or (device, mae_mev)
        assert first is not None
        equivariance = self._equivariance(first[0])
        speed = self._throughput(first[0], first[1], equivariance)
        self.progress("devices", len(device_ids), len(device_ids))
        result = self._result(device_ids, scores, equivariance, speed)
        with atomic_file(self.folder / "result.json") as temporary:
            temporary.write_text(result.to_json())
        return result

    # --- one device ---------------------------------------------------------------------------

    def _score(self, device: Device, scores: _Scores) -> float:
        """Score one device; return its MAE in meV."""
        predicted, key = self._prediction(device)
        with self.stages.measure(f"hamiltonian {device.id}"):
            aligned = hamiltonian.align(predicted, device.pattern)
            errors = self._errors(device, aligned)
            scores.errors.append(errors)
            scores.reference_errors += self._reference_errors(device, errors)
        matrix = aligned.matrix
        scores.spectra[device.id] = self._spectrum(device, matrix, key)
        scores.transmissions[device.id] = self._transmission(device, matrix, key)
        self._plot_errors(device, errors)
        return errors.statistic.mae_mev

    def _errors(self, device: Device, aligned: hamiltonian.Alignment) -> hamiltonian.DeviceErrors:
        """Errors of a device, or of the blocks of its scored part."""
        h, s = device.hamiltonian, device.overlap
        if self.partition is not None:
            split, part = self.partition
            h = h.select(block_parts(split, device.pattern) == list(split.parts).index(part))
            s = s.align(h.pattern)
            aligned = aligned._replace(matrix=aligned.matrix.align(h.pattern))
        return hamiltonian.device_errors(device.id, h, s, aligned)

    def _digest(self, device: Device) -> str:
        return self.release.manifest.devices[device.id].digest

    def _prediction(self, device: Device) -> tuple[BlockMatrix, list[object]]:
        """Predict and store, or find, the H of a device; the key names its content."""
        given = self.model.predictions_folder
        folder = given or self.folder / "predictions"
        if given is None:
            self._predict(device, folder)
        with self.stages.measure(f"read prediction {device.id}"):
            matrix = read_predictions(folder, device)
        return matrix, [SCORE_SPEC, self._digest(device), _fingerprint(matrix)]

    def _predict(self, device: Device, folder: Path) -> None:
        name = f"predict {device.id}"
        key = [self.model.digest, self._digest(device), self.request.accelerator]
        kind = TypeAdapter(str)
        path = folder / f"{device.id}.zarr.zip"
        if self.model.digest is not None and path.is_file():
            kept = self.stages.find(name, key, kind)
            if kept is not None and kept == read_content(path).digest():
                with self.stages.measure(name, cached=True):
                    return
        self.progress(name, 0, 1)
        with self.stages.measure(name):
            matrix = self.model.predict(device)
            write_predictions(folder, device.id, matrix, gauge=device.gauge, model=self.model.name)
        self.stages.keep(name, key, kind, read_content(path).digest())
        self.progress(name, 1, 1)

    @cached_property
    def _reference_model(self) -> LoadedModel | None:
        """The Slater–Koster weights frozen with this release, in whose error the skill is."""
        if REFERENCE_MODEL not in known_baselines():
            return None
        model = load_model(REFERENCE_MODEL)
        training = model.card.training if model.card else None
        fitted_here = training is not None and training.digest == self.release.manifest.digest
        return model if fitted_here else None

    def _reference_errors(
        self, device: Device, errors: hamiltonian.DeviceErrors
    ) -> list[hamiltonian.DeviceErrors]:
        reference = self._reference_model
        if reference is None:
            return []
        if self.model.digest == reference.digest:
            return [errors]
        return [self._errors(device, hamiltonian.align(reference.predict(device), device.pattern))]

    # --- spectrum -----------------------------------------------------------------------------

    def _spectrum(
        self, device: Device, matrix: BlockMatrix, key: list[object]
    ) -> SpectrumErrors | Unavailable:
        name = f"spectrum {device.id}"
        kind: TypeAdapter[SpectrumErrors | Unavailable] = TypeAdapter(SpectrumErrors | Unavailable)
        if device.gauge != "fermi":
            return Unavailable(reason="the Fermi level is not known")
        if self.partition is not None:
            return Unavailable(reason=_ONLY_A_PART)
        self.progress(name, 0, 1)

        def compute() -> SpectrumErrors | Unavailable:
            kpoints, weights = _kpoints(device)
            ours = self._reference_levels(device, kpoints)
            theirs = spectrum.device_levels(matrix, device.overlap, kpoints, matching=ours)
            return spectrum.compare_levels(ours, theirs, weights)

        errors = self.stages.kept(name, key, kind, compute)
        self.progress(name, 1, 1)
        return errors

    def _reference_levels(self, device: Device, kpoints: FloatArray) -> list[spectrum.Levels]:
        kind = TypeAdapter(list[tuple[int, list[float]]])

        def compute() -> list[tuple[int, list[float]]]:
            levels = spectrum.device_levels(device.hamiltonian, device.overlap, kpoints)
            return [(level.first, level.energies_ev.tolist()) for level in levels]

        digest = self._digest(device)
        kept = self.reference_stages.kept(
            f"levels-{digest[:16]}", [SCORE_SPEC, digest, kpoints.tolist()], kind, compute
        )
        return [spectrum.Levels(first, np.array(energies)) for first, energies in kept]

    # --- transmission -------------------------------------------------------------------------

    def _transmission(
        self, device: Device, matrix: BlockMatrix, key: list[object]
    ) -> DeviceTransmission | Unavailable:
        reference = device.transport
        if reference is None:
            return Unavailable(reason="the dataset has no contacts and no reference transmission")
        if self.partition is not None:
            return Unavailable(reason=_ONLY_A_PART)
        chosen = slice(None, None, self.stride)
        dft_contacts = matrix.replaced(device.hamiltonian, contact_blocks(device.pattern))
        headline = self._sweep(f"T(E) {device.id}", device, dft_contacts, key)
        everything = self._sweep(f"T(E) all predicted {device.id}", device, matrix, key)
        plots.plot_transmission(
            self.folder / "plots" / f"transmission-{device.id}.png",
            f"{self.model.name}: {device.id}",
            agreement.Curve(reference.energies_ev[chosen], reference.mean[chosen]),
            {
                "predicted, DFT contacts": agreement.Curve(headline.energies_ev, headline.mean),
                "all predicted": agreement.Curve(everything.energies_ev, everything.mean),
            },
        )
        return _compare_transmission(reference, headline, everything)

    def _sweep(
        self, name: str, device: Device, matrix: BlockMatrix, key: list[object]
    ) -> Transmission:
        """T(k, E) of one matrix; its points are kept, so that an interrupted sweep continues."""
        reference = device.transport
        assert reference is not None
        grid = Grid(reference.energies_ev[:: self.stride], reference.kpoints, reference.weights)
        lead = self.release.lead(reference.lead)
        return kept_transmission(
            self.stages,
            name,
            [*key, self.release.manifest.leads[reference.lead].digest, self.stride],
            matrix,
            device.overlap,
            Lead(lead.hamiltonian, lead.overlap),
            grid,
            lambda done: self.progress(name, done, math.prod(grid.shape)),
        )

    # --- the model itself ---------------------------------------------------------------------

    def _equivariance(self, device: Device) -> Equivariance | Unavailable:
        if self.model.predictions_folder is not None:
            return Unavailable(reason="predictions alone cannot be rotated: it needs the model")
        self.progress("equivariance", 0, 1)
        with self.stages.measure("equivariance"):
            cut = physicality.cut_out(device.structure)
            residuals = physicality.equivariance(self.model.model.predict, device.id, cut)
        self.progress("equivariance", 1, 1)
        return residuals

    def _throughput(
        self, device: Device, mae_mev: float, equivariance: Equivariance | Unavailable
    ) -> ThroughputSection | Unavailable:
        if self.model.predictions_folder is not None:
            return Unavailable(reason="predictions alone cannot be timed: it needs the model")
        if self.partition is not None:
            return Unavailable(reason=_ONLY_A_PART)
        self.progress("throughput", 0, 1)
        with self.stages.measure("throughput"):
            section = throughput.measure(
                self.model.model,
                device.id,
                device.hamiltonian,
                scored_mae_mev=mae_mev,
                equivariance=equivariance,
                accelerator=self.request.accelerator,
            )
        self.progress("throughput", 1, 1)
        return section

    # --- the whole ----------------------------------------------------------------------------

    def _result(
        self,
        device_ids: tuple[str, ...],
        scores: _Scores,
        equivariance: Equivariance | Unavailable,
        speed: ThroughputSection | Unavailable,
    ) -> Result:
        manifest = self.release.manifest
        split, _, part = self.request.selection.rpartition(":")
        chosen = self.request.devices is not None
        unit = None
        if scores.reference_errors:
            unit = hamiltonian.score_devices(scores.reference_errors).mae_mev
        errors = hamiltonian.score_devices(scores.errors, reference_mae_mev=unit)
        return Result(
            model=ModelInfo.model_validate(self.model.info),
            dataset=DatasetInfo(
                name=manifest.name,
                version=manifest.version,
                digest=manifest.digest,
                split="none" if chosen else split or DEFAULT_SPLIT,
                part="chosen" if chosen else part,
                devices=list(device_ids),
            ),
            hamiltonian=errors,
            spectrum=spectrum.score_devices(scores.spectra),
            transmission=agreement.score_devices(scores.transmissions, energy_stride=self.stride),
            physicality=physicality.section(
                [error.hermiticity for error in scores.errors], equivariance
            ),
            throughput=speed,
            environment=Environment.collect(self.stages.records),
        )

    def _plot_errors(self, device: Device, errors: hamiltonian.DeviceErrors) -> None:
        shells = hamiltonian.score_device(errors).by_distance
        plots.plot_error_by_distance(
            self.folder / "plots" / f"error-by-distance-{device.id}.png",
            f"{self.model.name}: {device.id}",
            [(shell.low_ang, shell.high_ang, shell.mae_full_mev) for shell in shells],
        )


def _fingerprint(matrix: BlockMatrix) -> str:
    """SHA-256 of a prediction's blocks."""
    state = hashlib.sha256()
    for array in (matrix.pattern.pair, matrix.pattern.shift, matrix.values):
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _kpoints(device: Device) -> tuple[FloatArray, FloatArray]:
    """k-points of a device's spectrum: the release's, else those of the DFT run."""
    if device.transport is not None:
        return device.transport.kpoints, device.transport.weights
    return monkhorst_pack(device.provenance.kpoint_mesh or (1, 1, 1))


def _compare_transmission(
    reference: TransportReference, headline: Transmission, everything: Transmission
) -> DeviceTransmission:
    chosen = np.searchsorted(reference.energies_ev, headline.energies_ev)
    ours = agreement.Curve.averaged(
        headline.energies_ev, reference.weights, reference.transmission[:, chosen]
    )
    theirs, all_predicted = (
        agreement.Curve.averaged(t.energies_ev, t.weights, t.by_k) for t in (headline, everything)
    )
    solver = agreement.solver_floor(
        headline.weights, headline.by_k, headline.points["meeting_error"]
    )
    return DeviceTransmission(
        **agreement.compare(ours, theirs).model_dump(),
        all_predicted=agreement.compare(ours, all_predicted),
        noise_floor=agreement.noise_floor(ours, reference.floors, solver=solver),
        gates=agreement.gates(headline.gates),
        conductance_g0=conductance_g0(*ours),
        predicted_conductance_g0=conductance_g0(*theirs),
        n_energies=len(headline.energies_ev),
        n_kpoints=len(headline.kpoints),
    )
