"""T(E) of one device from its own H or a predicted one: estimate, kept points, CSV and plot."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vcmbench import plots
from vcmbench.blocks import BlockMatrix
from vcmbench.device import Device, contact_blocks
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.importers.transmission_file import read_transmission
from vcmbench.kept_sweep import Grid, kept_transmission
from vcmbench.kpoints import monkhorst_pack
from vcmbench.machine import allowed_threads
from vcmbench.models import load_model
from vcmbench.predict import Target, predict
from vcmbench.release import Release, find_release
from vcmbench.resources import cache_folder
from vcmbench.scores.hamiltonian import align
from vcmbench.scores.result import SCORE_SPEC, TransmissionErrors
from vcmbench.scores.transmission import Curve, compare
from vcmbench.stages import Stages
from vcmbench.store.content import atomic_file
from vcmbench.store.predictions import read_predictions
from vcmbench.structure import FloatArray
from vcmbench.transport import Lead, Transmission, TransmissionSolver
from vcmbench.transport.arrays import TorchArrays
from vcmbench.transport.cache import Leads
from vcmbench.transport.estimate import Estimate, estimate
from vcmbench.transport.lead import ETA_EV
from vcmbench.transport.observables import EPSILON
from vcmbench.transport.sweep import (
    CHANNEL_TOLERANCE,
    GAMMA_TOLERANCE,
    MEETING_TOLERANCE,
)
from vcmbench.workers import running_cluster

SOLVER = f"{SCORE_SPEC} {ETA_EV}"
"""What kept points depend on beside the data."""

Accelerator = Literal["cpu", "cuda"]
Predicted = Literal["device", "contacts", "both"]
Progress = Callable[[str, int, int], None]

STEEP_DECADES = 0.1
"""A step of the grid over which T changes by more is halved where refinement is asked for."""
MAX_HALVINGS = 10

SAME_ENERGY_EV = 1e-5
"""Energies of another program that differ by less are ours: it may count in other units."""


@dataclass(frozen=True)
class Request:
    """Whose T(E), where: the fields are the options of ``vcmbench transmission``."""

    device: str
    dataset: str = "vcm-demo"
    model: str | None = None
    predicted: Predicted = "device"
    window_ev: tuple[float, float] = (-1.0, 1.0)
    step_ev: float = 0.01
    refine_ev: float | None = None
    leads: Leads = "decimation"
    accelerator: Accelerator = "cpu"
    scheduler: str | None = None
    compare: Path | None = None
    output: Path | None = None


@dataclass(frozen=True)
class Agreement:
    """How another program's T(E) differs from ours, on the energies that both have."""

    energies_ev: FloatArray
    errors: TransmissionErrors


@dataclass(frozen=True)
class Written:
    """T(E), the files it was written to, and what it was compared with."""

    transmission: Transmission
    csv: Path
    plot: Path
    agreement: Agreement | None


def transmit(
    request: Request,
    *,
    announce: Callable[[Estimate], None] = lambda _estimate: None,
    progress: Progress = lambda _name, _done, _total: None,
) -> Written:
    """Compute T(E) and write it.

    Parameters
    ----------
    request : Request
        Device, model and energies.
    announce : callable
        Told what it will take before it starts.
    progress : callable
        Called with the name of the sweep, finished and all points.

    Returns
    -------
    Written

    Raises
    ------
    VcmbenchError
        If the device has no contacts, the model or the T(E) to compare with is unusable, or a
        check of the solver fails; the message says at which k and E.
    """
    release = find_release(request.dataset)
    device = release.device(request.device)
    if device.lead is None:
        raise bad_input(device.id, "lead", found="none", expected="a device with two contacts")
    if device.is_withheld and request.predicted != "both":
        raise bad_input(
            device.id, "hamiltonian", found="withheld", expected="a model, predicted for both"
        )
    grid = _grid(device, request)
    other = None if request.compare is None else _other(request.compare, grid.energies_ev)
    if request.accelerator != "cpu":
        TorchArrays(request.accelerator)
    folder = request.output or Path("results") / f"transmission-{release.label}-{device.id}"
    name, hamiltonian = hamiltonian_of(
        device, request.model, request.predicted, request.accelerator, folder / "predictions"
    )
    bulk = release.lead(device.lead)
    lead = Lead(bulk.hamiltonian, bulk.overlap)
    announce(_estimate(hamiltonian, device, lead, grid, request.leads))
    stages = Stages(folder / "stages")

    def sweep(energies_ev: FloatArray) -> Transmission:
        part = grid._replace(energies_ev=energies_ev)
        key = _key(release, device, hamiltonian, part, request.leads)
        label = f"T(E) {device.id}, {len(energies_ev)} energies"
        found = kept_transmission(
            stages,
            f"T(E) {name} {hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}",
            key,
            hamiltonian,
            device.overlap,
            lead,
            part,
            lambda done: progress(label, done, math.prod(part.shape)),
            request.accelerator,
            client,
            request.leads,
        )
        _require_gates(device.id, found)
        return found

    cluster = nullcontext() if request.scheduler is None else running_cluster(request.scheduler)
    with cluster as client:
        found = sweep(grid.energies_ev)
        if request.refine_ev is not None:
            found = _refined(found, sweep, request.refine_ev)
    agreement = None if other is None else _agreement(found, other)
    written = Written(found, folder / f"{name}.csv", folder / f"{name}.png", agreement)
    curves = {name: Curve(found.energies_ev, found.mean)}
    if request.compare is not None and other is not None:
        curves[request.compare.name] = other
    _write_csv(written.csv, found)
    _plot(written.plot, device, curves)
    return written


def _other(path: Path, energies_ev: FloatArray) -> Curve:
    """T(E) of another program, on those of our energies that it has."""
    theirs = Curve(*read_transmission(path))
    ours, same = np.nonzero(np.abs(energies_ev[:, None] - theirs.energies_ev) < SAME_ENERGY_EV)
    if len(ours) < 2:
        low, high = theirs.energies_ev[[0, -1]]
        raise bad_input(
            path,
            "energies",
            found=f"{len(theirs.energies_ev)} of {low:g} … {high:g} eV, {len(ours)} of them ours",
            expected="at least two that are computed here: choose --window and --step",
        )
    return Curve(energies_ev[ours], np.maximum(theirs.transmission[same], 0.0))


def _agreement(found: Transmission, other: Curve) -> Agreement:
    common = np.isin(found.energies_ev, other.energies_ev)
    reference = Curve(other.energies_ev, found.mean[common])
    return Agreement(other.energies_ev, compare(reference, other))


def _estimate(
    hamiltonian: BlockMatrix, device: Device, lead: Lead, grid: Grid, leads: Leads
) -> Estimate:
    cache = cache_folder() / "leads"
    solver = TransmissionSolver(hamiltonian, device.overlap, lead, cache, leads=leads)
    return estimate(solver, grid.energies_ev, grid.kpoints, allowed_threads())


def _refined(
    found: Transmission, sweep: Callable[[FloatArray], Transmission], finest_ev: float
) -> Transmission:
    """Halve steps of the grid until T changes little over each of them, or they are the finest."""
    for _ in range(MAX_HALVINGS):
        logarithm = np.log10(found.mean + EPSILON)
        steep = np.abs(np.diff(logarithm)) > STEEP_DECADES
        step = np.diff(found.energies_ev)
        chosen = np.flatnonzero(steep & (step / 2 > finest_ev - 1e-12))
        if not len(chosen):
            break
        middle = np.round(found.energies_ev[chosen] + step[chosen] / 2, 9)
        found = found.joined(sweep(middle))
    return found


def hamiltonian_of(
    device: Device,
    model: str | None,
    predicted: Predicted = "both",
    accelerator: Accelerator = "cpu",
    folder: Path | None = None,
) -> tuple[str, BlockMatrix]:
    """Name and matrix of a device's own H or of a predicted one.

    Parameters
    ----------
    device : Device
        The device.
    model : str or None
        What `vcmbench.models.load_model` takes; None for the H of the dataset.
    predicted : {"device", "contacts", "both"}
        What the prediction is used for: everything but the blocks within and between the contacts,
        only these, or all. The rest is the dataset's.
    accelerator : {"cpu", "cuda"}
        Where the model computes.
    folder : Path, optional
        Where predictions are kept, and found again.
    """
    if model is None:
        return "dft", device.hamiltonian
    loaded = load_model(model, accelerator=accelerator)
    if loaded.predictions_folder is None and folder is not None:
        target = Target(device.id, device.structure, device.gauge)
        predict(loaded, [target], folder, accelerator=accelerator)
        matrix = read_predictions(folder, device)
    else:
        matrix = loaded.predict(device)
    matrix = align(matrix, device.pattern).matrix
    contacts = contact_blocks(device.pattern)
    if predicted == "device":
        matrix = matrix.replaced(device.hamiltonian, contacts)
    elif predicted == "contacts":
        matrix = device.hamiltonian.replaced(matrix, contacts)
    return f"{loaded.name.replace('/', '-')}-{predicted}", matrix


def _grid(device: Device, request: Request) -> Grid:
    low, high = request.window_ev
    if not (-np.inf < low < high < np.inf and request.step_ev > 0):
        raise bad_input(
            "energies",
            "window and step",
            found=f"{low:g} … {high:g} eV in steps of {request.step_ev:g} eV",
            expected="an ascending window and a positive step",
        )
    if request.refine_ev is not None and not request.refine_ev > 0:
        raise bad_input(
            "energies", "refine", found=f"{request.refine_ev:g} eV", expected="a positive step"
        )
    n_energies = math.floor((high - low) / request.step_ev + 1e-9) + 1
    energies = np.round(low + request.step_ev * np.arange(n_energies), 9)
    if device.transport is not None:
        return Grid(energies, device.transport.kpoints, device.transport.weights)
    return Grid(energies, *monkhorst_pack(device.provenance.kpoint_mesh or (1, 1, 1)))


def _key(
    release: Release, device: Device, hamiltonian: BlockMatrix, grid: Grid, leads: Leads
) -> list[object]:
    assert device.lead is not None
    return [
        SOLVER if leads == "decimation" else f"{SCORE_SPEC} {leads}",
        release.manifest.devices[device.id].digest,
        release.manifest.leads[device.lead].digest,
        hashlib.sha256(np.ascontiguousarray(hamiltonian.values).tobytes()).hexdigest(),
        grid.energies_ev.tolist(),
        grid.kpoints.tolist(),
    ]


def _require_gates(name: str, found: Transmission) -> None:
    """Refuse a T that fails a check of the solver, and say where it fails worst."""
    if found.gates.passed:
        return
    points = found.points
    excess = {
        "T below 0": (-points["transmission"], 0.0),
        "T above the open channels": (
            points["transmission"] - points["channels"],
            CHANNEL_TOLERANCE,
        ),
        "T at two layers": (points["meeting_error"], MEETING_TOLERANCE),
        "negative Gamma": (points["negative_gamma"], GAMMA_TOLERANCE),
    }
    problems = []
    for label, (value, limit) in excess.items():
        k, e = np.unravel_index(np.nan_to_num(value, nan=np.inf).argmax(), value.shape)
        if not value[k, e] <= limit:
            problems.append(
                f"{name}: {label}: found {value[k, e]:.3g} at k = {found.kpoints[k].tolist()}, "
                f"E = {found.energies_ev[e]:g} eV, expected at most {limit:g}"
            )
    raise VcmbenchError("\n".join(problems))


def _write_csv(path: Path, found: Transmission) -> None:
    """Columns: energy, k-averaged T, then T and open channels of each k-point."""
    columns = {"energy_ev": found.energies_ev, "transmission": found.mean}
    for k, row in zip(found.kpoints, found.points, strict=True):
        label = f"({k[1]:g} {k[2]:g})"
        columns[f"transmission {label}"] = row["transmission"]
        columns[f"channels {label}"] = row["channels"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _plot(path: Path, device: Device, curves: Mapping[str, Curve]) -> None:
    """T(E) beside the stored reference, within the window of the first."""
    stored, reference = device.transport, None
    if stored is not None:
        low, high = next(iter(curves.values())).energies_ev[[0, -1]]
        inside = (stored.energies_ev >= low - 1e-9) & (stored.energies_ev <= high + 1e-9)
        reference = stored.energies_ev[inside], stored.mean[inside]
    plots.plot_transmission(path, device.id, reference, curves)
