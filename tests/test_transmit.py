"""T(E) of one device on request: the stored reference again, with every point accounted for."""

from __future__ import annotations

import csv
import importlib.util
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.device import contact_blocks
from vcmbench.errors import VcmbenchError
from vcmbench.machine import (
    peak_memory_bytes,
    reset_peak_memory,
    resident_bytes,
    return_free_memory,
)
from vcmbench.models.slater_koster import SlaterKoster
from vcmbench.release import Release, find_release
from vcmbench.release.hidden import hide_devices
from vcmbench.store import write_predictions
from vcmbench.transmit import Request, hamiltonian_of, transmit
from vcmbench.transport import Lead, TransmissionSolver
from vcmbench.transport.estimate import estimate, zgemm_flops

without_cuda = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None
    or importlib.import_module("torch").cuda.is_available(),
    reason="needs torch and no CUDA device",
)
WINDOW = {"window_ev": (-0.1, 0.1), "step_ev": 0.1}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def request_for(wire_release, tmp_path):
    def make(**options):
        options = {**WINDOW, "output": tmp_path / "out", **options}
        return Request("wire", str(wire_release), **options)

    return make


@pytest.fixture(scope="module")
def stored(wire_release):
    return Release.open(wire_release).device("wire")


def test_dft_gives_the_stored_reference_again(request_for, stored):
    announced, steps = [], []
    written = transmit(
        request_for(), announce=announced.append, progress=lambda *step: steps.append(step)
    )
    reference = stored.transport
    there = np.searchsorted(reference.energies_ev, [-0.1, 0.0])
    np.testing.assert_allclose(
        written.transmission.by_k[:, :2], reference.transmission[:, there], rtol=1e-6
    )
    assert steps[-1] == ("T(E) wire, 3 energies", 6, 6)
    assert announced[0].n_points == 6
    with written.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["energy_ev"]) for row in rows] == [-0.1, 0.0, 0.1]
    for index, row in enumerate(rows):
        parts = [float(row[f"transmission ({k})"]) for k in ("0.25 0.25", "0.25 -0.25")]
        assert float(row["transmission"]) == pytest.approx(np.mean(parts), rel=1e-12)
        # An ideal wire lets every channel through.
        channels = [float(row[f"channels ({k})"]) for k in ("0.25 0.25", "0.25 -0.25")]
        assert parts == pytest.approx(channels, rel=1e-5)
        assert parts == pytest.approx(written.transmission.by_k[:, index].tolist(), rel=1e-12)
    assert written.plot.read_bytes().startswith(b"\x89PNG")


def test_prediction_in_the_device_the_contacts_or_both(request_for, stored, tmp_path):
    shifted = stored.hamiltonian + 0.2 * stored.overlap
    write_predictions(tmp_path / "mine", "wire", shifted, gauge="fermi")
    written = {
        part: transmit(request_for(model=str(tmp_path / "mine"), predicted=part))
        for part in ("device", "contacts", "both")
    }
    assert [w.csv.name for w in written.values()] == [f"mine-{part}.csv" for part in written]
    curves = [transmit(request_for()), *written.values()]
    means = [curve.transmission.mean for curve in curves]
    for i in range(4):
        for j in range(i):
            assert np.abs(means[i] - means[j]).max() > 1e-3
    _, contacts = hamiltonian_of(stored, str(tmp_path / "mine"), "contacts")
    inner = ~contact_blocks(stored.pattern)
    np.testing.assert_array_equal(
        contacts.select(inner).values, stored.hamiltonian.select(inner).values
    )


def test_points_are_kept(request_for, monkeypatch):
    first = transmit(request_for()).transmission

    def forbidden(self, k, energy_ev):
        raise AssertionError("computed again")

    monkeypatch.setattr(TransmissionSolver, "point", forbidden)
    again = transmit(request_for()).transmission
    np.testing.assert_array_equal(again.by_k, first.by_k)
    with pytest.raises(AssertionError):
        transmit(request_for(step_ev=0.05))


def test_steep_steps_are_halved_down_to_the_finest(request_for):
    plain = transmit(request_for(window_ev=(-0.5, 0.5), step_ev=0.25)).transmission
    found = transmit(request_for(window_ev=(-0.5, 0.5), step_ev=0.25, refine_ev=0.06)).transmission
    energies = found.energies_ev
    assert np.all(np.diff(energies) > 0)
    assert set(plain.energies_ev) < set(energies)
    assert np.diff(energies).min() == pytest.approx(0.0625)
    np.testing.assert_array_equal(found.by_k[:, np.isin(energies, plain.energies_ev)], plain.by_k)
    # What is left coarse is flat; what is steep is as fine as asked for.
    change = np.abs(np.diff(np.log10(found.mean)))
    assert np.all((change <= 0.1) | (np.diff(energies) < 0.12))


def test_prediction_is_kept_and_found_again(wire_release, tmp_path, monkeypatch):
    request = Request("wire", str(wire_release), "slater-koster", output=tmp_path, **WINDOW)
    first = transmit(request)
    monkeypatch.setattr(SlaterKoster, "predict_blocks", None)
    again = transmit(request)
    np.testing.assert_array_equal(again.transmission.by_k, first.transmission.by_k)
    assert again.csv == tmp_path / "slater-koster-device.csv"


def test_leads_by_modes_keep_their_own_points(request_for, monkeypatch):
    by_decimation = transmit(request_for())
    solve, solved = TransmissionSolver.point, []
    monkeypatch.setattr(TransmissionSolver, "point", lambda *a: solved.append(a) or solve(*a))
    by_modes = transmit(request_for(leads="modes"))
    assert len(solved) == by_modes.transmission.by_k.size
    np.testing.assert_allclose(
        by_modes.transmission.by_k, by_decimation.transmission.by_k, rtol=1e-5
    )
    channels = by_modes.transmission.points["channels"]
    np.testing.assert_array_equal(channels, np.round(channels))
    # An ideal wire lets every channel through.
    np.testing.assert_allclose(by_modes.transmission.by_k, channels, rtol=1e-9)


def test_other_grids_keep_their_own_points(request_for, monkeypatch):
    solve, solved = TransmissionSolver.point, []
    monkeypatch.setattr(TransmissionSolver, "point", lambda *a: solved.append(a) or solve(*a))
    transmit(request_for())
    transmit(request_for(step_ev=0.2))
    count = len(solved)
    transmit(request_for())
    assert len(solved) == count


def test_withheld_device_needs_a_prediction_of_everything(wire_release, tmp_path):
    public, private = tmp_path / "public", tmp_path / "private"
    hide_devices(Release.open(wire_release), ("wire",), public, private)
    request = Request("wire", str(public), "slater-koster", output=tmp_path / "out", **WINDOW)
    with pytest.raises(VcmbenchError, match="wire: hamiltonian: found withheld, expected a model"):
        transmit(request)
    assert not (tmp_path / "out").exists()


def test_failed_check_says_where(request_for, wire_release, tmp_path, monkeypatch):
    solve = TransmissionSolver.point

    def wrong(self, k, energy_ev):
        point = solve(self, k, energy_ev)
        if energy_ev == 0.1:
            point["meeting_error"] = 2e-3
        return point

    monkeypatch.setattr(TransmissionSolver, "point", wrong)
    with pytest.raises(VcmbenchError, match=r"two layers: found 0\.002 at k = .*E = 0\.1 eV"):
        transmit(request_for())
    assert not list((tmp_path / "out").glob("*.csv"))
    options = ["--dataset", str(wire_release), "--window", "0", "0.1", "--step", "0.1"]
    result = CliRunner().invoke(
        app, ["transmission", "wire", *options, "--output", str(tmp_path / "cli")]
    )
    assert isinstance(result.exception, VcmbenchError)


def test_command_prints_only_what_the_window_holds(wire_release, tmp_path):
    def run(low, high, step):
        options = ["--dataset", str(wire_release), "--output", str(tmp_path)]
        grid = ["--window", low, high, "--step", step]
        result = CliRunner().invoke(
            app, ["transmission", "wire", *options, *grid], env={"COLUMNS": "200"}
        )
        assert result.exit_code == 0, result.output
        return [cell.strip() for cell in result.stdout.splitlines()[-2].split("│")[1:4]]

    assert run("-0.1", "0.1", "0.025") == ["–"] * 3
    assert run("-0.4", "0.4", "0.1") == ["–"] * 3
    conductance, low, high = run("-0.325", "0.325", "0.025")
    assert float(conductance) > 1
    assert float(low) > 1e-6
    assert high == "–"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_ev": (0.1, -0.1)}, "expected an ascending window"),
        ({"step_ev": 0.0}, "expected an ascending window and a positive step"),
        ({"window_ev": (-np.inf, 1.0)}, "expected an ascending window"),
        ({"refine_ev": 0.0}, "refine: found 0 eV, expected a positive step"),
        ({"model": "slater-kostr"}, "slater-kostr"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "no Dask scheduler answers"),
        pytest.param(
            {"accelerator": "cuda"}, "accelerator: found no CUDA device", marks=without_cuda
        ),
    ],
)
def test_bad_requests_are_refused(request_for, options, message):
    with pytest.raises(VcmbenchError, match=message):
        transmit(request_for(**options))


def test_bulk_has_no_contacts(request_for, wire_release, tmp_path):
    with pytest.raises(VcmbenchError, match="lead: found none, expected a device with two"):
        transmit(Request("bulk", str(wire_release), output=tmp_path))


def test_estimate_counts_what_the_solver_holds(wire_release, stored, tmp_path):
    bulk = Release.open(wire_release).lead("lead-tin")
    lead = Lead(bulk.hamiltonian, bulk.overlap)
    solver = TransmissionSolver(stored.hamiltonian, stored.overlap, lead, tmp_path)
    kpoints, energies = stored.transport.kpoints, np.array([0.0, 0.2])
    expected = estimate(solver, energies, kpoints, threads=2)
    assert (expected.n_points, expected.n_surfaces) == (4, 4)
    device = solver.device_at(kpoints[0])
    held = [*device._left.strips, *device._right.strips, *device._meeting]
    assert solver.layers_at(kpoints[0]).matrix_entries == sum(blocks.h.size for blocks in held)
    for k in kpoints:
        for energy in energies:
            solver.point(k, energy)
    assert estimate(solver, energies, kpoints, threads=2).n_surfaces == 0
    # Twice the energies cost twice the work.
    double = estimate(solver, np.linspace(0, 0.2, 4), kpoints, threads=2)
    assert double.n_points == 2 * expected.n_points
    assert double.gflop_per_point == expected.gflop_per_point
    warm = estimate(solver, np.linspace(0, 0.2, 2), kpoints, threads=2)
    assert (
        0.3
        < warm.seconds * 2 / (warm.n_points * warm.gflop_per_point * 1e9) * (0.5 * zgemm_flops())
        < 3
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs the peak of a part of the process")
@pytest.mark.parametrize("repeats", [(1, 2, 1), pytest.param((1, 2, 2), marks=pytest.mark.slow)])
def test_estimated_memory_is_what_a_wide_device_takes(repeats, tmp_path):
    release = find_release("vcm-demo")
    device = release.device("device-a")
    bulk = release.lead(device.lead)
    matrices = [m.repeated(repeats) for m in (device.hamiltonian, device.overlap)]
    solver = TransmissionSolver(*matrices, Lead(bulk.hamiltonian, bulk.overlap), tmp_path)
    k = device.transport.kpoints[0] * repeats
    return_free_memory()
    before = resident_bytes()
    expected = estimate(solver, np.array([0.0]), k[None], threads=1).memory_bytes - before
    return_free_memory()
    reset_peak_memory()
    before = resident_bytes()
    solver.point(k, 0.0)
    assert peak_memory_bytes() - before == pytest.approx(expected, rel=0.25)
