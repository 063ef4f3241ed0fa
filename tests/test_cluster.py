"""Recipes on Dask: who waits for whom, and one failure that stays one."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
from test_cli import run
from test_production import converged
from typer.testing import CliRunner

from vcmbench import cluster, workers
from vcmbench.cli import app
from vcmbench.cluster import Outcome, build
from vcmbench.errors import VcmbenchError
from vcmbench.machine import allowed_threads, available_cpus
from vcmbench.production import Site
from vcmbench.production_record import ProductionRecord
from vcmbench.recipe import Recipe

distributed = pytest.importorskip("distributed", reason="Dask: pip install 'vcmbench[dft]'")

RECIPE = """
name: toy
defaults: {cross_section_ang: 8.48, oxide_units: 26}
devices:
  - {id: a0, structure: {seed: 1}}
  - {id: b0, structure: {seed: 2}}
  - {id: a1, structure: {seed: 1, vacancies: {kind: random, count: 1}}}
  - {id: a2, structure: {seed: 1, vacancies: {kind: random, count: 2}}}
"""


@pytest.fixture(scope="module")
def client():
    with distributed.Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as client:
        yield client


@pytest.fixture
def recipe_path(tmp_path):
    (tmp_path / "toy.yml").write_text(RECIPE)
    return tmp_path / "toy.yml"


@pytest.fixture
def site(recipe_path, tmp_path) -> Site:
    return Site(Recipe.read(recipe_path), tmp_path / "output", tmp_path / "work")


class Work:
    """Stands in for the computation: what happened when, and what fails."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.first: dict[str, str | None] = {}
        self.fails: dict[str, Exception] = {}
        self.ranks: set[int | None] = set()
        self._lock = threading.Lock()

    def lead(self, site, progress):
        return self._compute(site, site.recipe.lead, None, progress)

    def device(self, site, job, first, progress):
        self.first[job.id] = first
        return self._compute(site, job.id, job, progress)

    def _compute(self, site, name, job, progress):
        self.ranks.add(site.ranks)
        self._note("begin", name)
        progress(f"{name}: at work")
        time.sleep(0.05)
        self._note("end", name)
        if name in self.fails:
            raise self.fails[name]
        settings = site.recipe.dft
        return ProductionRecord(
            id=name, job=job, settings=settings, run=converged(settings), n_sites=8, n_orbitals=56,
            checks={}, import_seconds=1, content_digest="0", store_bytes=2_500_000,
        )  # fmt: skip

    def _note(self, what, name):
        with self._lock:
            self.events.append((what, name))

    def after(self, name, other) -> bool:
        """Whether one began after another had ended."""
        return self.events.index(("begin", name)) > self.events.index(("end", other))


@pytest.fixture
def work(monkeypatch) -> Work:
    work = Work()
    monkeypatch.setattr(cluster, "produce_lead", work.lead)
    monkeypatch.setattr(cluster, "produce_device", work.device)
    return work


def built(client, site, jobs=None, **options) -> dict[str, Outcome]:
    outcomes = list(build(client, site, jobs or site.recipe.devices, **options))
    named = {outcome.name: outcome for outcome in outcomes}
    assert len(named) == len(outcomes)
    return named


def test_lead_first_then_families_whose_siblings_wait(client, site, work):
    outcomes = built(client, site)
    assert set(outcomes) == {"lead-tin", "a0", "a1", "a2", "b0"}
    assert all(o.error is None and o.record.id == name for name, o in outcomes.items())
    assert all(work.after(name, "lead-tin") for name in ("a0", "a1", "a2", "b0"))
    assert work.after("a1", "a0")
    assert work.after("a2", "a0")
    assert work.first == {"a0": None, "b0": None, "a1": "a0", "a2": "a0"}


def test_only_the_devices_that_are_wanted(client, site, work):
    jobs = tuple(job for job in site.recipe.devices if job.id in ("a1", "a2"))
    assert set(built(client, site, jobs)) == {"lead-tin", "a1", "a2"}
    # Whether a0 is finished shows when they begin.
    assert work.first == {"a1": "a0", "a2": "a0"}


@pytest.mark.parametrize("error", [VcmbenchError("a0: no convergence"), OSError("disk full")])
def test_failure_of_one_device_stays_its_own(client, site, work, error):
    """Also of the first of a family, and whatever went wrong."""
    work.fails["a0"] = error
    outcomes = built(client, site)
    assert str(error) in outcomes["a0"].error
    assert "a0" in outcomes["a0"].error
    assert outcomes["a0"].record is None
    assert all(outcomes[name].error is None for name in ("lead-tin", "b0", "a1", "a2"))


@pytest.mark.parametrize("error", [VcmbenchError("CP2K failed"), RuntimeError("CP2K failed")])
def test_failure_of_the_lead_is_told_for_each_device(client, site, work, error):
    work.fails["lead-tin"] = error
    outcomes = built(client, site)
    assert "CP2K failed" in outcomes["lead-tin"].error
    for name in ("a0", "a1", "a2", "b0"):
        assert outcomes[name].error.startswith(f"{name}: not computed, its lead failed: ")
        assert "CP2K failed" in outcomes[name].error
    assert not work.first


def test_progress_of_the_workers_is_told(client, site, work):
    told = []
    built(client, site, tell=told.append)
    end = time.monotonic() + 30
    while len(told) < 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert set(told) == {f"{name}: at work" for name in ("lead-tin", "a0", "a1", "a2", "b0")}


def test_building_twice_computes_twice_what_is_not_finished(client, site, work):
    """Dask must not answer from its memory: `produce_device` decides what is finished."""
    built(client, site)
    built(client, site)
    assert work.events.count(("begin", "b0")) == 2


# The command


@pytest.fixture
def command(client, monkeypatch, recipe_path, tmp_path):
    @contextmanager
    def ours(_n_workers):
        yield client

    monkeypatch.setattr(workers, "local_cluster", ours)
    arguments = ["data", "build", str(recipe_path), "--output", str(tmp_path / "output")]
    return lambda *more: CliRunner().invoke(
        app, [*arguments, "--work", str(tmp_path / "work"), *more], env={"COLUMNS": "200"}
    )


def test_command_shows_what_it_computed(command, work):
    result = command("--devices", "b0,a1")
    assert result.exit_code == 0, result.output
    assert set(work.first) == {"b0", "a1"}
    for text in ("lead-tin: finished", "b0: finished", "a1: finished", "2.5", "atomic"):
        assert text in result.output


@pytest.mark.parametrize(("options", "ranks"), [((), 8), (("--workers", "3"), 2)])
def test_workers_share_the_cores(command, work, monkeypatch, options, ranks):
    monkeypatch.setattr("vcmbench.machine.available_cpus", lambda: 8)
    assert command("--devices", "b0", *options).exit_code == 0
    assert work.ranks == {ranks}


def test_command_tells_every_failure_at_the_end(command, work):
    work.fails["a0"] = VcmbenchError("a0: no convergence")
    work.fails["b0"] = VcmbenchError("b0: memory")
    result = command()
    assert isinstance(result.exception, VcmbenchError)
    assert set(str(result.exception).splitlines()) == {"a0: no convergence", "b0: memory"}
    assert "a0: failed" in result.output
    assert "a2: finished" in result.output


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (RECIPE, ("--devices", "a0,a9"), "unknown device of"),
        ("name: [", (), "not a YAML document"),
        ("name: x\ndevices: []\n", (), "toy.yml: devices: Tuple should have at least 1 item"),
    ],
)
def test_mistakes_end_with_exit_code_2(recipe_path, tmp_path, text, options, message):
    recipe_path.write_text(text)
    result = run("data", "build", str(recipe_path), "--output", str(tmp_path / "out"), *options)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_workers_of_this_machine_use_all_its_cores():
    """Dask's default of one thread a worker would leave the others idle during T(E)."""
    with workers.local_cluster(1) as client:
        assert client.submit(allowed_threads).result() == available_cpus()
