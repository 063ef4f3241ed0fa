"""The whole evaluation, on a small device with real DFT blocks."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.errors import VcmbenchError
from vcmbench.evaluate import Request, run
from vcmbench.release import Release
from vcmbench.scores.result import Unavailable, json_schema, read_result
from vcmbench.store import read_device, write_device, write_predictions

SHIFT_EV = 0.1


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests of this module, away from the user's."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("VCMBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def stored(wire_release):
    """Return the devices as they are read back: rounded."""
    release = Release.open(wire_release)
    return {name: release.device(name) for name in release.manifest.devices}


def predictions(folder, device, matrix, **options):
    write_predictions(folder, device.id, matrix, gauge="fermi", **options)
    return str(folder)


def evaluate(model, wire_release, output, **options):
    request = Request(model=model, dataset=str(wire_release), output=output, **options)
    return run(request).result


def test_reference_against_itself_is_all_zeros(wire_release, stored, tmp_path):
    folder = tmp_path / "self"
    for device in stored.values():
        predictions(folder, device, device.hamiltonian)
    result = evaluate(str(folder), wire_release, tmp_path / "out", devices=("wire", "bulk"))
    assert result.hamiltonian.mae_mev == 0
    assert result.hamiltonian.mae_full_mev == 0
    assert result.hamiltonian.largest_full.error_mev == 0
    assert result.spectrum.largest_mev == pytest.approx(0, abs=1e-6)
    assert result.transmission.log10_p95 == pytest.approx(0, abs=1e-9)
    assert result.transmission.gates.passed
    assert isinstance(result.transmission.devices["bulk"], Unavailable)
    assert isinstance(result.throughput, Unavailable)
    assert isinstance(result.physicality.equivariance, Unavailable)
    document = json.loads((tmp_path / "out/result.json").read_text())
    jsonschema.validate(document, json_schema())
    assert read_result(tmp_path / "out/result.json") == result
    plots = {path.name for path in (tmp_path / "out/plots").iterdir()}
    assert "transmission-wire.png" in plots
    assert {"error-by-distance-wire.png", "error-by-distance-bulk.png"} <= plots


def test_a_gauge_error_is_found_and_named(wire_release, stored, tmp_path):
    """H + μS shifts every eigenvalue by μ, and is zero after the gauge shift."""
    device = stored["wire"]
    shifted = device.hamiltonian + SHIFT_EV * device.overlap
    result = evaluate(
        predictions(tmp_path / "shifted", device, shifted), wire_release, tmp_path / "out"
    )
    assert result.hamiltonian.gauge.shift_mev == pytest.approx(1e3 * SHIFT_EV, rel=1e-4)
    assert result.hamiltonian.gauge.mae_mev < 1e-2 * result.hamiltonian.mae_mev
    assert result.spectrum.mean_mev == pytest.approx(1e3 * SHIFT_EV, rel=1e-3)


def test_directed_and_incomplete_predictions(wire_release, stored, tmp_path):
    device = stored["wire"]
    truncated = device.hamiltonian.truncate(8.0)
    half = evaluate(
        predictions(tmp_path / "half", device, truncated), wire_release, tmp_path / "out-half"
    )
    both = evaluate(
        predictions(tmp_path / "both", device, truncated.directed()),
        wire_release,
        tmp_path / "out-both",
    )
    missing = int(device.pattern.weight[device.pattern.distance >= 8.0].sum())
    assert half.hamiltonian.support.missing_blocks == missing
    assert both.hamiltonian.support.missing_blocks == missing
    assert half.hamiltonian.mae_mev == 0
    assert half.hamiltonian.mae_full_mev == both.hamiltonian.mae_full_mev > 0
    assert half.transmission.log10_mae == pytest.approx(both.transmission.log10_mae)


def test_non_hermitian_prediction_is_reported_then_symmetrised(wire_release, stored, tmp_path):
    device = stored["wire"]
    both = device.hamiltonian.directed()
    values = both.values.copy()
    forward = both.pattern.pair[:, 0] < both.pattern.pair[:, 1]
    values += np.where(both.pattern.entry_mask(forward), 1e-3, -1e-3)
    onsite = both.pattern.entry_mask(both.pattern.is_onsite)
    values[onsite] = both.values[onsite]
    selfimage = both.pattern.entry_mask(both.pattern.pair[:, 0] == both.pattern.pair[:, 1])
    values[selfimage] = both.values[selfimage]
    result = evaluate(
        predictions(tmp_path / "wrong", device, both.with_values(values)),
        wire_release,
        tmp_path / "out",
    )
    assert result.physicality.hermiticity.largest_mev == pytest.approx(2.0, rel=1e-6)
    assert result.hamiltonian.mae_full_mev == pytest.approx(0, abs=1e-6)


def test_running_again_finds_what_was_done(wire_release, stored, tmp_path, monkeypatch):
    folder = predictions(tmp_path / "self", stored["wire"], stored["wire"].hamiltonian)
    first = evaluate(folder, wire_release, tmp_path / "out")

    def forbidden(*_args, **_kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr("vcmbench.transport.sweep.TransmissionSolver.point", forbidden)
    monkeypatch.setattr("vcmbench.scores.spectrum.matrix_levels", forbidden)
    again = evaluate(folder, wire_release, tmp_path / "out")
    assert again.transmission == first.transmission
    assert again.spectrum == first.spectrum
    cached = {stage.name: stage.cached for stage in again.environment.stages}
    assert cached["T(E) wire"]
    assert cached["spectrum wire"]


def test_interrupted_sweep_continues(wire_release, stored, tmp_path, monkeypatch):
    from vcmbench.transport.sweep import TransmissionSolver

    monkeypatch.setattr("vcmbench.kept_sweep.KEEP_EVERY_S", 0.0)
    folder = predictions(tmp_path / "self", stored["wire"], stored["wire"].hamiltonian)
    solve, solved = TransmissionSolver.point, []

    def interrupted(self, k, energy_ev):
        if len(solved) == 5:
            raise KeyboardInterrupt
        solved.append(energy_ev)
        return solve(self, k, energy_ev)

    monkeypatch.setattr(TransmissionSolver, "point", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, wire_release, tmp_path / "out")
    assert not (tmp_path / "out/result.json").exists()
    monkeypatch.setattr(TransmissionSolver, "point", solve)
    again, count = [], []

    def counted(self, k, energy_ev):
        count.append(energy_ev)
        return solve(self, k, energy_ev)

    monkeypatch.setattr(TransmissionSolver, "point", counted)
    again = evaluate(folder, wire_release, tmp_path / "out")
    assert len(count) == 2 * 10 - 5
    assert again.transmission.log10_mae == pytest.approx(0, abs=1e-9)


def test_changed_predictions_are_scored_anew(wire_release, stored, tmp_path):
    device = stored["wire"]
    folder = predictions(tmp_path / "p", device, device.hamiltonian)
    before = evaluate(folder, wire_release, tmp_path / "out")
    predictions(tmp_path / "p", device, 1.1 * device.hamiltonian)
    after = evaluate(folder, wire_release, tmp_path / "out")
    assert before.transmission.log10_mae < 1e-9 < 1e-3 < after.transmission.log10_mae


def test_callable_model_from_the_command_line(wire_release, tmp_path, monkeypatch):
    """A user's module: throughput and equivariance are measured, everything is written."""
    (tmp_path / "mine.py").write_text(
        "from vcmbench.basis import OrbitalBasis\n"
        "from vcmbench.blocks import BlockMatrix, BlockPattern\n"
        "class Zero:\n"
        "    cutoff_ang = 8.0\n"
        "    def predict(self, structure):\n"
        "        basis = OrbitalBasis.from_labels('toy', {'N': [0, 1], 'Ti': [0, 0, 1, 2]})\n"
        "        pattern = BlockPattern.from_structure(structure, basis, self.cutoff_ang)\n"
        "        return BlockMatrix.zeros(pattern)\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", "mine:Zero", "--dataset", str(wire_release), "--json", "--quick"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    result = read_result(tmp_path / "results/mine.Zero-wires/result.json")
    assert result.model.kind == "callable"
    assert result.hamiltonian.support.missing_blocks > 0
    assert result.hamiltonian.skill is None
    assert result.transmission.energy_stride == 4
    assert result.throughput.atoms_per_s > 0
    assert result.throughput.peak_memory_bytes >= 0
    assert result.physicality.equivariance.largest == 0
    assert (tmp_path / "results/mine.Zero-wires/predictions/wire.zarr.zip").is_file()


def test_undeclared_gauge_is_refused(wire_release, stored, tmp_path):
    from vcmbench.store.content import Content, read_content, write_content

    device = stored["wire"]
    folder = predictions(tmp_path / "p", device, device.hamiltonian)
    path = tmp_path / "p/wire.zarr.zip"
    content = read_content(path)
    attributes = {key: dict(value) for key, value in content.attributes.items()}
    del attributes[""]["gauge"]
    write_content(path, Content(content.arrays, attributes))
    with pytest.raises(VcmbenchError, match=r"wire\.zarr\.zip: gauge: found undeclared"):
        evaluate(folder, wire_release, tmp_path / "out")
    assert not (tmp_path / "out/result.json").exists()


def test_bulk_without_a_fermi_level_has_no_spectrum(wire_release, stored, tmp_path):
    """Bulk data in its own gauge is scored on H alone, with reasons for the rest."""
    raw = replace(stored["bulk"], gauge="raw")
    path = wire_release / "devices/bulk.zarr.zip"
    before = path.read_bytes()
    try:
        write_device(path, raw)
        assert read_device(path).gauge == "raw"
        write_predictions(tmp_path / "p", "bulk", raw.hamiltonian, gauge="raw")
        result = evaluate(str(tmp_path / "p"), wire_release, tmp_path / "out", devices=("bulk",))
    finally:
        path.write_bytes(before)
    assert result.hamiltonian.mae_mev == 0
    assert isinstance(result.spectrum, Unavailable)
    assert "Fermi level" in result.spectrum.reason
    assert isinstance(result.transmission, Unavailable)
