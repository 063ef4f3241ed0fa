"""One device of a recipe: structure, SCF, import, reference transmission, store, clean-up.

output/devices/<id>.zarr.zip   output/leads/<lead>.zarr.zip   finished stores
output/records/<id>.json       how each came about; written last: with it a device is finished
work/<id>/                     CP2K's folder, a few GB; emptied once the store is verified
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from vcmbench.basis import OrbitalBasis
from vcmbench.build.builder import BuiltDevice, build_device
from vcmbench.build.metal import tin_cell
from vcmbench.device import Device
from vcmbench.dft.cp2k_input import (
    VALENCE,
    Cp2kSettings,
    default_mesh,
    n_electrons,
    placed_in_cell,
)
from vcmbench.dft.density import density_matrix, vacated
from vcmbench.dft.launcher import Launcher
from vcmbench.dft.memory import estimate_bytes, require_memory
from vcmbench.dft.restart_file import write_restart
from vcmbench.dft.run import LADDER, RunRecord, run_scf
from vcmbench.documents import read_json, write_json
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.importers import ImportedRun, import_cp2k
from vcmbench.importers.molopt import molopt_shells
from vcmbench.label_noise import label_noise
from vcmbench.production_record import RECORDS, ProductionRecord
from vcmbench.recipe import DeviceJob, Recipe
from vcmbench.reference import Operators, with_reference
from vcmbench.resources import cache_folder
from vcmbench.store.device import content_digest, read_device, write_device
from vcmbench.structure import Structure

START_NAME: Final = "start-RESTART.kp"
"""A sibling's density, adapted."""

LEAD_NOISE_MEV: Final = 0.1
"""Largest difference of two runs of the lead: ten times what the SCF threshold leaves."""

SAME_SITE_ANG: Final = 1e-6
"""Siblings built alike differ by less."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """Where a recipe is computed.

    Parameters
    ----------
    recipe : Recipe
        What to compute.
    output, work : Path
        Folders of the results and of the runs.
    ranks : int or None
        MPI ranks of each CP2K; all cores of the machine if None.
    """

    recipe: Recipe
    output: Path
    work: Path
    ranks: int | None = None

    def record_path(self, name: str) -> Path:
        """Record of a device or lead."""
        return self.output / RECORDS / f"{name}.json"

    def store_path(self, kind: str, name: str) -> Path:
        """Store of a device (``"devices"``) or lead (``"leads"``)."""
        return self.output / kind / f"{name}.zarr.zip"

    def finished(self, kind: str, name: str, job: DeviceJob | None) -> ProductionRecord | None:
        """Record of a finished device or lead, None if it is still to be computed.

        Raises
        ------
        VcmbenchError
            If it was computed from another recipe.
        """
        path = self.record_path(name)
        if not path.exists() or not self.store_path(kind, name).exists():
            return None
        record = read_json(ProductionRecord, path)
        # Converged further than asked for is as good.
        further = min(record.settings.eps_scf, self.recipe.dft.eps_scf)
        settings = self.recipe.dft.model_copy(update={"eps_scf": further})
        for field, expected in (("job", job), ("settings", settings)):
            if (found := getattr(record, field)) != expected:
                raise bad_input(path, field, found=found, expected=f"{expected} as in the recipe")
        return record


def produce_lead(site: Site, progress: Progress = lambda _text: None) -> ProductionRecord:
    """Compute the lead, unless it is finished; its raw matrices stay for the devices.

    Where the work folder is new, the run is repeated for them; a finished store is left alone.
    """
    name = site.recipe.lead
    done = site.finished("leads", name, None)
    if done and _has_matrices(site.work / name):
        return done
    structure = placed_in_cell(tin_cell())
    run = run_scf(
        site.work / name,
        structure,
        site.recipe.dft,
        Launcher.find(site.ranks),
        progress=_told(progress, name),
    )
    if done:
        return done
    begin = time.monotonic()
    imported = import_cp2k(site.work / name, device_id=name, kind="bulk")
    return _store(site, "leads", None, imported, run, time.monotonic() - begin)


def produce_device(
    site: Site, job: DeviceJob, first: str | None, progress: Progress = lambda _text: None
) -> ProductionRecord:
    """Compute one device, unless it is finished.

    Parameters
    ----------
    site : Site
        Recipe and folders; the lead is finished.
    job : DeviceJob
        The device.
    first : str, optional
        Id of a finished sibling whose density starts the SCF.
    progress : callable
        Told what is going on.
    """
    if done := site.finished("devices", job.id, job):
        return done
    progress(f"{job.id}: structure")
    built = build_device(job.structure, threads=site.recipe.threads)
    structure = placed_in_cell(built.structure)
    folder = site.work / job.id
    launcher = Launcher.find(site.ranks)
    _require_memory(job.id, structure, site.recipe.dft, launcher.ranks)
    start = None
    if first is not None and (path := site.store_path("devices", first)).exists():
        progress(f"{job.id}: density of {first}")
        start = _sibling_density(read_device(path), folder, structure, site.recipe.dft)
    run = run_scf(
        folder,
        structure,
        site.recipe.dft,
        launcher,
        start_density=None if start is None else (str(first), start),
        progress=_told(progress, job.id),
    )
    begin = time.monotonic()
    progress(f"{job.id}: import")
    imported = import_cp2k(folder, device_id=job.id)
    import_seconds = time.monotonic() - begin
    begin = time.monotonic()
    lead, raw_lead = _lead(site)
    device = with_reference(
        imported.device,
        Operators(imported.raw_hamiltonian, imported.raw_overlap),
        lead,
        raw_lead,
        cache=cache_folder() / "leads",
        progress=lambda name, done, total: progress(f"{job.id}: T(E), {name} {done}/{total}"),
    )
    record = _store(
        site,
        "devices",
        job,
        replace(imported, device=device),
        run,
        import_seconds,
        built=built,
        transmission_seconds=time.monotonic() - begin,
    )
    _delete_raw_files(folder)
    return record


def _lead(site: Site) -> tuple[Device, Operators]:
    """Return the lead of the release and all that its run printed.

    A repeated run agrees with the finished store to the SCF threshold, not to the last digit:
    T(E) is always that of the store.
    """
    name = site.recipe.lead
    run = import_cp2k(site.work / name, device_id=name, kind="bulk", check_electrons=False)
    path = site.store_path("leads", name)
    stored = read_device(path)
    raw = Operators(run.raw_hamiltonian, run.raw_overlap)
    if content_digest(run.device) == content_digest(stored):
        return run.device, raw  # Not yet rounded: the floor of rounding needs it so.
    if (largest := label_noise(stored, run.device).max_mev) > LEAD_NOISE_MEV:
        raise bad_input(
            path,
            "hamiltonian",
            found=f"up to {largest:.3g} meV from that of {site.work / name}",
            expected=f"at most {LEAD_NOISE_MEV:g} meV: another lead",
        )
    return stored, raw


def _store(
    site: Site,
    kind: str,
    job: DeviceJob | None,
    imported: ImportedRun,
    run: RunRecord,
    import_seconds: float,
    *,
    built: BuiltDevice | None = None,
    transmission_seconds: float | None = None,
) -> ProductionRecord:
    """Write the store, read it back, and only then the record."""
    device = imported.device
    path = site.store_path(kind, device.id)
    digest = write_device(path, device)
    if (found := content_digest(read_device(path))) != digest:
        raise VcmbenchError(f"{path}: content digest: found {found}, expected {digest} as written")
    record = ProductionRecord(
        id=device.id,
        job=job,
        settings=site.recipe.dft,
        run=run,
        n_sites=device.structure.n_sites,
        n_orbitals=device.pattern.n_orbitals,
        rejected_oxides=built.rejected if built else (),
        quality=built.quality if built else None,
        md_code=built.code if built else None,
        checks={check.name: check.value for check in imported.checks},
        import_seconds=round(import_seconds, 1),
        transmission_seconds=transmission_seconds and round(transmission_seconds, 1),
        content_digest=digest,
        store_bytes=path.stat().st_size,
    )
    write_json(site.record_path(device.id), record)
    return record


def _sibling_density(
    sibling: Device, folder: Path, structure: Structure, settings: Cp2kSettings
) -> Path | None:
    """Density of a finished sibling without the oxygens that this device lacks.

    None where sites lie elsewhere, or where an oxygen would have to be put back.
    """
    there = sibling.structure
    # Molecular dynamics on another CPU ends in other positions: a density of other places.
    if there.n_sites != structure.n_sites or not np.allclose(
        there.positions, structure.positions, rtol=0, atol=SAME_SITE_ANG
    ):
        return None
    if (there.is_ghost & ~structure.is_ghost).any():
        return None
    target = folder / START_NAME
    if not target.exists():
        density = density_matrix(
            sibling.hamiltonian,
            sibling.overlap,
            n_electrons=n_electrons(there),
            kpoint_mesh=settings.kpoint_mesh or default_mesh(there),
            temperature_k=settings.smearing_temperature_k,
        )
        leaving = np.flatnonzero(structure.is_ghost & ~there.is_ghost)
        folder.mkdir(parents=True, exist_ok=True)
        write_restart(target, vacated(density, sibling.overlap, leaving, VALENCE["O"]))
    return target


def _basis(structure: Structure, basis_set: str) -> OrbitalBasis:
    species = structure.species_list
    return OrbitalBasis(basis_set, {s: molopt_shells(basis_set, s.number) for s in species})


def _require_memory(name: str, structure: Structure, settings: Cp2kSettings, ranks: int) -> None:
    settings = settings.model_copy(update={"mixing": LADDER[0]})
    basis = _basis(structure, settings.basis_set)
    n_orbitals = sum(
        basis.n_orbitals(structure.species_list[index]) for index in structure.species_index
    )
    require_memory(estimate_bytes(structure, settings, n_orbitals, ranks), name)


def _told(progress: Progress, name: str) -> Callable[[int, float], None]:
    return lambda steps, residual: progress(f"{name}: SCF step {steps}, residual {residual:.1e}")


def _has_matrices(folder: Path) -> bool:
    return any(folder.glob("*.csr"))


def _delete_raw_files(folder: Path) -> None:
    """Delete matrices and densities: several GB."""
    for pattern in ("*.csr", "*.kp*"):
        for path in folder.glob(pattern):
            path.unlink()
