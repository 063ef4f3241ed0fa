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

from vcmbench.build.builder import BuiltDevice, build_device
from vcmbench.build.extxyz import read_extxyz
from vcmbench.build.metal import tin_cell
from vcmbench.dft.cp2k_input import RESTART_NAME, Cp2kSettings, placed_in_cell
from vcmbench.dft.launcher import Launcher
from vcmbench.dft.memory import estimate_bytes, require_memory
from vcmbench.dft.restart_file import adapt_restart, is_complete
from vcmbench.dft.run import LADDER, STRUCTURE, RunRecord, run_scf
from vcmbench.documents import read_json, write_json
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.importers import ImportedRun, import_cp2k
from vcmbench.importers.molopt import molopt_shells
from vcmbench.production_record import RECORDS, ProductionRecord
from vcmbench.recipe import DeviceJob, Recipe
from vcmbench.reference import Operators, with_reference
from vcmbench.resources import cache_folder
from vcmbench.store.device import content_digest, read_device, write_device
from vcmbench.structure import FloatArray, IntArray, Structure

START_NAME: Final = "start-RESTART.kp"
"""A sibling's density, adapted."""
VACATED: Final = 0.5
"""Amplitude that stays on a site whose oxygen leaves: two of eight electrons."""

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
        for field, expected in (("job", job), ("settings", self.recipe.dft)):
            if (found := getattr(record, field)) != expected:
                raise bad_input(path, field, found=found, expected=f"{expected} as in the recipe")
        return record


def produce_lead(site: Site, progress: Progress = lambda _text: None) -> ProductionRecord:
    """Compute the lead, unless it is finished; its raw matrices stay for the devices."""
    name = site.recipe.lead
    if (done := site.finished("leads", name, None)) and _has_matrices(site.work / name):
        return done
    structure = placed_in_cell(tin_cell())
    run = run_scf(
        site.work / name,
        structure,
        site.recipe.dft,
        Launcher.find(site.ranks),
        progress=_told(progress, name),
    )
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
        Id of a finished sibling whose saved density starts the SCF.
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
    if first is not None:
        start = _sibling_density(site.work / first, folder, structure, site.recipe.dft.basis_set)
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
    lead = import_cp2k(site.work / site.recipe.lead, device_id=site.recipe.lead, kind="bulk")
    device = with_reference(
        imported.device,
        Operators(imported.raw_hamiltonian, imported.raw_overlap),
        lead.device,
        Operators(lead.raw_hamiltonian, lead.raw_overlap),
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
    _delete_matrices(folder)
    return record


def delete_densities(site: Site, jobs: tuple[DeviceJob, ...]) -> None:
    """Delete the saved densities of finished siblings: about 3 GB each."""
    for job in jobs:
        for path in (site.work / job.id).glob("*.kp*"):
            path.unlink()


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
    source: Path, folder: Path, structure: Structure, basis_set: str
) -> Path | None:
    """Density of a sibling, with the oxygens taken out that this device lacks."""
    if not is_complete(source / RESTART_NAME):
        return None
    sibling = read_extxyz(source / STRUCTURE)
    # Molecular dynamics on another CPU ends in other positions: a density of other places.
    if sibling.n_sites != structure.n_sites or not np.allclose(
        sibling.positions, structure.positions, rtol=0, atol=SAME_SITE_ANG
    ):
        return None
    target = folder / START_NAME
    if not target.exists():
        factors = vacancy_factors(sibling, structure)
        per_orbital = np.repeat(factors, _site_orbitals(structure, basis_set))
        adapt_restart(source / RESTART_NAME, target, per_orbital)
    return target


def vacancy_factors(sibling: Structure, structure: Structure) -> FloatArray:
    """(n_sites,) amplitude by which each site's density changes between siblings."""
    change = structure.is_ghost.astype(int) - sibling.is_ghost.astype(int)
    return np.select([change > 0, change < 0], [VACATED, 1 / VACATED], 1.0)


def _site_orbitals(structure: Structure, basis_set: str) -> IntArray:
    per_species = [
        sum(2 * l + 1 for l in molopt_shells(basis_set, species.number))
        for species in structure.species_list
    ]
    return np.array(per_species)[structure.species_index]


def _require_memory(name: str, structure: Structure, settings: Cp2kSettings, ranks: int) -> None:
    settings = settings.model_copy(update={"mixing": LADDER[0]})
    n_orbitals = int(_site_orbitals(structure, settings.basis_set).sum())
    require_memory(estimate_bytes(structure, settings, n_orbitals, ranks), name)


def _told(progress: Progress, name: str) -> Callable[[int, float], None]:
    return lambda steps, residual: progress(f"{name}: SCF step {steps}, residual {residual:.1e}")


def _has_matrices(folder: Path) -> bool:
    return any(folder.glob("*.csr"))


def _delete_matrices(folder: Path) -> None:
    for path in folder.glob("*.csr"):
        path.unlink()
    (folder / START_NAME).unlink(missing_ok=True)
