"""One device of a recipe: what is finished stays, and what belongs to another recipe is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from importer_runs import unpacked

from vcmbench import production
from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.build.spec import DeviceSpec
from vcmbench.dft.cp2k_input import Cp2kSettings
from vcmbench.dft.density import electrons
from vcmbench.dft.launcher import Launcher
from vcmbench.dft.restart_file import read_restart
from vcmbench.dft.run import LADDER, Attempt, RunRecord
from vcmbench.errors import VcmbenchError
from vcmbench.importers import ImportedRun, import_cp2k
from vcmbench.production import Site, produce_device, produce_lead
from vcmbench.production_record import ProductionRecord
from vcmbench.recipe import DeviceJob, Recipe
from vcmbench.store.device import content_digest, read_device
from vcmbench.structure import Structure


def job(name="s1-v0", **structure) -> DeviceJob:
    fields = {"cross_section_ang": 8.48, "oxide_units": 26, **structure}
    return DeviceJob(id=name, structure=DeviceSpec(**fields))


@pytest.fixture
def site(tmp_path) -> Site:
    recipe = Recipe(name="toy", devices=(job(), job("s1-v1", seed=1)))
    return Site(recipe, tmp_path / "output", tmp_path / "work", ranks=2)


def converged(settings: Cp2kSettings) -> RunRecord:
    attempt = Attempt(
        mixing=LADDER[0], start="atomic", steps=14, residual=2e-7, seconds=40, outcome="converged"
    )
    return RunRecord(structure_sha256="0", settings=settings, attempts=(attempt,))


def finish(site: Site, device: DeviceJob) -> ProductionRecord:
    """Leave behind what a finished device does."""
    record = ProductionRecord(
        id=device.id,
        job=device,
        settings=site.recipe.dft,
        run=converged(site.recipe.dft),
        n_sites=294,
        n_orbitals=2052,
        checks={},
        import_seconds=1.0,
        content_digest="0",
        store_bytes=1,
    )
    for path, text in (
        (site.store_path("devices", device.id), ""),
        (site.record_path(device.id), record.model_dump_json()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return record


@pytest.fixture
def _nothing_computed(monkeypatch):
    for name in ("build_device", "run_scf", "import_cp2k"):
        monkeypatch.setattr(production, name, lambda *_a, name=name, **_o: pytest.fail(name))


# Finished or not


@pytest.mark.usefixtures("_nothing_computed")
def test_finished_device_is_not_computed_again(site):
    record = finish(site, job())
    assert produce_device(site, job(), None) == record


@pytest.mark.usefixtures("_nothing_computed")
def test_device_that_was_converged_further_is_finished(site):
    record = finish(site, job())
    for eps_scf, finished in ((1e-4, True), (1e-7, False)):
        dft = site.recipe.dft.model_copy(update={"eps_scf": eps_scf})
        looser = Site(site.recipe.model_copy(update={"dft": dft}), site.output, site.work)
        if finished:
            assert produce_device(looser, job(), None) == record
        else:
            with pytest.raises(VcmbenchError, match=r"eps_scf=1e-06.*eps_scf=1e-07"):
                produce_device(looser, job(), None)


def test_unfinished_devices(site):
    assert site.finished("devices", "s1-v0", job()) is None
    finish(site, job())
    site.store_path("devices", "s1-v0").unlink()
    assert site.finished("devices", "s1-v0", job()) is None


@pytest.mark.usefixtures("_nothing_computed")
def test_device_of_another_recipe_is_refused(site):
    finish(site, job())
    with pytest.raises(VcmbenchError, match=r"s1-v0\.json: job: found .*seed=0.* as in the recipe"):
        produce_device(site, job(seed=7), None)
    other = site.recipe.model_copy(update={"dft": Cp2kSettings(cutoff_ry=300)})
    changed = Site(other, site.output, site.work)
    with pytest.raises(VcmbenchError, match=r"s1-v0\.json: settings: found .*cutoff_ry=400\.0"):
        produce_device(changed, job(), None)


@pytest.fixture(scope="module")
def lead_run() -> ImportedRun:
    return import_cp2k(
        unpacked("lead-tin"), device_id="lead-tin", kind="bulk", check_electrons=False
    )


@pytest.fixture
def runs(lead_run, monkeypatch) -> list[Path]:
    """Replace CP2K by a copy of a real run; the folders it is asked for."""
    folders = []

    def copied(folder, _structure, settings, _launcher, **_options):
        folders.append(folder)
        shutil.copytree(unpacked("lead-tin"), folder)
        return converged(settings)

    monkeypatch.setattr(production, "run_scf", copied)
    monkeypatch.setattr(production, "import_cp2k", lambda _folder, **_options: lead_run)
    monkeypatch.setattr(Launcher, "find", lambda ranks: Launcher("cp2k", "mpirun", ranks, {}))
    return folders


def test_lead_is_stored_verified_and_recorded_once(site, runs):
    record = produce_lead(site)
    store = site.store_path("leads", "lead-tin")
    assert content_digest(read_device(store)) == record.content_digest
    assert (record.n_sites, record.n_orbitals, record.run.steps) == (8, 56, 14)
    assert record.store_bytes == store.stat().st_size
    assert any("S in the bond frame" in name for name in record.checks)
    assert ProductionRecord.model_validate_json(site.record_path("lead-tin").read_bytes()) == record
    # The devices need its raw matrices.
    assert list((site.work / "lead-tin").glob("*.csr"))
    assert produce_lead(site) == record
    assert runs == [site.work / "lead-tin"]
    # With the runs' folder removed it is computed again, for its matrices.
    shutil.rmtree(site.work)
    assert produce_lead(site).content_digest == record.content_digest
    assert len(runs) == 2


def repeated(lead_run, monkeypatch, change_ev: float) -> None:
    """Have the import find a run whose H differs by so much from the one that was stored."""
    h = lead_run.device.hamiltonian
    device = replace(lead_run.device, hamiltonian=h.with_values(h.values + change_ev))
    again = replace(lead_run, device=device)
    monkeypatch.setattr(production, "import_cp2k", lambda _folder, **_options: again)


@pytest.mark.usefixtures("runs")
def test_a_repeated_lead_leaves_the_store_alone_and_T_with_it(site, lead_run, monkeypatch):
    digest = produce_lead(site).content_digest
    lead, _raw = production._lead(site)
    assert lead is lead_run.device
    repeated(lead_run, monkeypatch, 1e-5)
    shutil.rmtree(site.work)
    assert produce_lead(site).content_digest == digest
    lead, raw = production._lead(site)
    assert content_digest(lead) == digest
    assert raw.hamiltonian is lead_run.raw_hamiltonian


@pytest.mark.usefixtures("runs")
def test_another_lead_is_refused(site, lead_run, monkeypatch):
    produce_lead(site)
    repeated(lead_run, monkeypatch, 1e-3)
    with pytest.raises(VcmbenchError, match="another lead"):
        production._lead(site)


@pytest.mark.usefixtures("runs")
def test_store_that_reads_back_otherwise_is_not_recorded(site, monkeypatch):
    monkeypatch.setattr(production, "content_digest", lambda _device: "flipped")
    with pytest.raises(VcmbenchError, match="content digest: found flipped, expected"):
        produce_lead(site)
    assert not site.record_path("lead-tin").exists()


# Siblings


def sites(*ghosts: bool) -> Structure:
    positions = np.arange(3 * len(ghosts)).reshape(-1, 3)
    return Structure.create([8] * len(ghosts), positions, 20 * np.eye(3), is_ghost=ghosts)


def sibling(structure: Structure) -> SimpleNamespace:
    """What of a finished device the start of another needs, for oxygens far from each other."""
    basis = OrbitalBasis("b", dict.fromkeys(structure.species_list, (0, 1)))
    pattern = BlockPattern.from_structure(structure, basis, 1.0)
    overlap = BlockMatrix(pattern, np.tile(np.eye(4).ravel(), structure.n_sites))
    hamiltonian = overlap.with_values(np.tile(np.diag([-20.0, -5, -5, -5]).ravel(), 2))
    return SimpleNamespace(structure=structure, hamiltonian=hamiltonian, overlap=overlap)


def test_sibling_gives_its_density_without_the_oxygen_that_leaves(site):
    full, folder = sibling(sites(False, False)), site.work / "s1-v1"
    target = sites(False, True)
    start = production._sibling_density(full, folder, target, site.recipe.dft)
    density = read_restart(start, full.overlap.pattern)
    assert electrons(density, full.overlap) == pytest.approx(6, rel=1e-6)
    staying, leaving = density.values.reshape(2, 4, 4)
    assert np.trace(staying) == pytest.approx(6, rel=1e-6)
    assert abs(leaving).max() < 1e-6


def test_an_oxygen_that_would_have_to_come_back_is_no_start(site):
    given = sibling(sites(True, False))
    folder, wanted = site.work / "s1-v1", sites(False, False)
    assert production._sibling_density(given, folder, wanted, site.recipe.dft) is None


def test_sibling_that_was_built_elsewhere_is_no_start(site):
    """Other positions, as molecular dynamics on another CPU gives: its density is of no use."""
    structure = sites(False, False)
    moved = structure.positions.copy()
    moved[0, 0] += 0.1
    given, folder = sibling(structure.moved(moved)), site.work / "s1-v1"
    assert production._sibling_density(given, folder, structure, site.recipe.dft) is None


def test_raw_files_are_deleted_and_nothing_else(site):
    folder = site.work / "s1-v0"
    folder.mkdir(parents=True)
    kept = {"out.log", "run.json"}
    for name in (*kept, "vcm-RESTART.kp", "vcm-RESTART.kp.bak-1", "vcm-KS_SPIN_1_R_1-1_0.csr"):
        (folder / name).write_text("")
    production._delete_raw_files(folder)
    assert {path.name for path in folder.iterdir()} == kept
