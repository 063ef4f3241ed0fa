"""T(E) of other programs: what each of them writes is read, and compared with ours."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.errors import VcmbenchError
from vcmbench.exporters.quatrex_export import write_quatrex
from vcmbench.importers.transmission_file import read_transmission
from vcmbench.release import Release
from vcmbench.transmit import Request, transmit

ENERGIES = np.array([-0.1, 0.0, 0.1])
RYDBERG_EV = 13.605693


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def ours(wire_release, tmp_path):
    request = Request(
        "wire", str(wire_release), window_ev=(-0.1, 0.1), step_ev=0.1, output=tmp_path / "ours"
    )
    return transmit(request)


def compared(wire_release, path, tmp_path, **options):
    options = {"window_ev": (-0.1, 0.1), "step_ev": 0.1, "output": tmp_path / "ours", **options}
    return transmit(Request("wire", str(wire_release), compare=path, **options)).agreement


def write_tbtrans(path, by_k, weights):
    """The part of a TBT.nc that holds T: energies in Ry, T(k, E) between the leads."""
    netcdf = pytest.importorskip("netCDF4")
    pytest.importorskip("sisl")
    with netcdf.Dataset(path, "w") as file:
        for name, size in (("nkpt", len(weights)), ("ne", len(ENERGIES)), ("xyz", 3)):
            file.createDimension(name, size)
        file.createVariable("E", "f8", ("ne",))[:] = ENERGIES / RYDBERG_EV
        file.createVariable("wkpt", "f8", ("nkpt",))[:] = weights
        file.createVariable("kpt", "f8", ("nkpt", "xyz"))[:] = 0.0
        for lead, other in (("Left", "Right"), ("Right", "Left")):
            variable = file.createGroup(lead).createVariable(f"{other}.T", "f8", ("nkpt", "ne"))
            variable[:] = by_k


def test_tbtrans(wire_release, ours, tmp_path):
    found = ours.transmission
    path = tmp_path / "siesta.TBT.nc"
    write_tbtrans(path, found.by_k, found.weights)
    energies, transmission = read_transmission(path)
    np.testing.assert_allclose(energies, ENERGIES, atol=1e-6)
    np.testing.assert_allclose(transmission, found.mean, rtol=1e-12)
    agreement = compared(wire_release, path, tmp_path)
    assert agreement.errors.log10_mae < 1e-12
    write_tbtrans(path, 0.1 * found.by_k, found.weights)
    assert compared(wire_release, path, tmp_path).errors.log10_signed_mean == pytest.approx(-1)


def test_table_of_tbtrans_and_our_own(wire_release, ours, tmp_path):
    path = tmp_path / "siesta.TBT.AVTRANS_Left-Right"
    rows = "".join(
        f"{e:12.6f} {2 * t:.10e}\n" for e, t in zip(ENERGIES, ours.transmission.mean, strict=True)
    )
    path.write_text(f"# Averaged transmission\n#   E [eV]   Trans [G0]\n{rows}")
    errors = compared(wire_release, path, tmp_path).errors
    assert errors.log10_signed_mean == pytest.approx(np.log10(2))
    assert errors.integrated_difference == pytest.approx(1)
    # The order of lines does not matter.
    path.write_text("\n".join(reversed(rows.splitlines())))
    assert compared(wire_release, path, tmp_path).errors == errors
    assert compared(wire_release, ours.csv, tmp_path).errors.log10_mae == 0


def test_quatrex_folder(wire_release, ours, tmp_path):
    pytest.importorskip("h5py")
    device = Release.open(wire_release).device("wire")
    lead = Release.open(wire_release).lead("lead-tin").structure
    folder = tmp_path / "wire.quatrex"
    options = {"kpoint_mesh": (1, 2, 2), "window_ev": (-0.1, 0.1), "n_energies": 3}
    write_quatrex(folder, device.hamiltonian, device.overlap, lead, **options)
    (folder / "outputs").mkdir()
    # Its whole mesh: k and -k both, along axes of their own.
    by_k = ours.transmission.by_k
    full = np.stack([by_k[[0, 1]], by_k[[1, 0]]])
    np.save(folder / "outputs/transmission_lr.npy", 3 * full)
    errors = compared(wire_release, folder, tmp_path).errors
    assert errors.log10_signed_mean == pytest.approx(np.log10(3))
    np.save(folder / "outputs/transmission_lr.npy", full[..., :2])
    with pytest.raises(VcmbenchError, match=r"shape: found \(2, 2, 2\), expected 3 energies"):
        read_transmission(folder)
    (folder / "quatrex_config.toml").write_text("[device]\n")
    with pytest.raises(VcmbenchError, match="expected two contacts and an energy window"):
        read_transmission(folder)


def test_only_common_energies_are_compared(wire_release, ours, tmp_path):
    path = tmp_path / "t.csv"
    mean = ours.transmission.mean
    path.write_text(f"energy,T\n-0.1,{mean[0]}\n0.05,9\n0.1,{10 * mean[2]}\n0.7,9\n")
    agreement = compared(wire_release, path, tmp_path)
    np.testing.assert_array_equal(agreement.energies_ev, [-0.1, 0.1])
    assert agreement.errors.log10_mae == pytest.approx(0.5)
    path.write_text("0.05 9\n0.1 9\n0.7 9\n")
    with pytest.raises(VcmbenchError, match=r"3 of 0.05 … 0.7 eV, 1 of them ours"):
        compared(wire_release, path, tmp_path)


def test_command_prints_the_agreement(wire_release, ours, tmp_path):
    path = tmp_path / "mine.csv"
    with ours.csv.open() as file:
        rows = [f"{r['energy_ev']},{10 * float(r['transmission'])}" for r in csv.DictReader(file)]
    path.write_text("\n".join(rows))
    command = ["transmission", "wire", "--dataset", str(wire_release), "--compare", str(path)]
    grid = ["--window", "-0.1", "0.1", "--step", "0.1", "--output", str(tmp_path / "ours")]
    result = CliRunner().invoke(app, [*command, *grid], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("│")]
    table = dict([c.strip() for c in line.split("│")[1:3]] for line in lines)
    assert float(table["log10_signed_mean"]) == pytest.approx(1)
    assert table["conductance_log10_error"] == "–"
    assert "at 3 energies" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no numbers here\n", "content: found no numbers, expected a table of E and T"),
        ("0.1 1.0\n0.1 2.0\n", "energies: found one twice, expected T averaged over k"),
        ("0.1 1.0\n0.2 nan\n", "found NaN or infinity"),
        ("0.1 1.0\n0.2\n", "line 2 of the table: found 0.2, expected E and T"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(VcmbenchError, match=message):
        read_transmission(path)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VcmbenchError, match="found no text"):
        read_transmission(tmp_path / "t.npz")
    pytest.importorskip("netCDF4")
    pytest.importorskip("sisl")
    (tmp_path / "t.nc").write_text("no netCDF")
    with pytest.raises(VcmbenchError, match="expected a file of TBtrans"):
        read_transmission(tmp_path / "t.nc")
    with pytest.raises(FileNotFoundError):
        read_transmission(tmp_path / "absent.nc")
