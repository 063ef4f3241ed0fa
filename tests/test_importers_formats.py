"""The ETH text format and DeepH folders, written from real CP2K data and read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from importer_runs import dense, edit, imported, read_text, unpacked, write_text

from vcmbench.basis import Species
from vcmbench.errors import VcmbenchError
from vcmbench.harmonics import real_harmonics
from vcmbench.importers import checks, import_deeph, import_eth
from vcmbench.importers.deeph import openmx_permutation
from vcmbench.units import HARTREE_EV

KPOINTS = [(0, 0, 0), (0.5, 0, 0.25), (0.1, 0.2, 0.3)]


# ETH


def write_eth(folder: Path, run, *, raw_fermi_ev: float) -> Path:
    """Write a run's Γ-point matrices as the published data are."""
    folder.mkdir()
    structure = run.device.structure
    h, s = dense(run, (0, 0, 0))
    for name, matrix in (("H", h / HARTREE_EV + raw_fermi_ev / HARTREE_EV * s), ("S", s)):
        rows, columns = np.nonzero(np.triu(matrix))
        write_text(
            folder / f"{name}.csr",
            np.stack([rows + 1, columns + 1, matrix[rows, columns]], axis=1),
        )
    sides = ", ".join(f"{side}" for side in np.diag(structure.cell))
    labels = [structure.species_list[s].label for s in structure.species_index]
    symbols = [{"O*": "V"}.get(label, label) for label in labels]
    lines = [
        f"{symbol} {x:.10f} {y:.10f} {z:.10f}"
        for symbol, (x, y, z) in zip(symbols, structure.positions, strict=True)
    ]
    (folder / "structure.xyz").write_text(
        f"{len(lines)}\ni = 0, E = 1.0, {sides}\n" + "\n".join(lines) + "\n"
    )
    return folder


@pytest.fixture
def box(tmp_path) -> Path:
    """CP2K's own files of a Γ-only run, as they are, with a structure.xyz."""
    run = imported("gamma-box")
    folder = write_eth(tmp_path / "box", run, raw_fermi_ev=0.0)
    for name, operator in (("H", "KS"), ("S", "S")):
        shutil.copy(
            unpacked("gamma-box") / f"mini-{operator}_SPIN_1-1_0.csr", folder / f"{name}.csr"
        )
    return folder


def test_eth_folder_gives_what_the_run_gives(box, monkeypatch):
    expected = imported("gamma-box")
    # The format knows one basis set for all elements; this run mixes two.
    shells = {s.number: ls for s, ls in expected.device.basis.shells.items()}
    monkeypatch.setattr("vcmbench.importers.eth.molopt_shells", lambda _name, n: shells[n])
    fermi_energy_ev = expected.device.provenance.fermi_energy_ev
    run = import_eth(box, fermi_energy_ev=fermi_energy_ev, source="here")
    assert run.device.kind == "bulk"
    assert run.device.folded
    assert run.device.gauge == "fermi"
    assert Species(8, True) in run.device.structure.species_list
    np.testing.assert_array_equal(run.device.pattern.shift, expected.device.pattern.shift)
    np.testing.assert_array_equal(run.device.hamiltonian.values, expected.device.hamiltonian.values)
    assert import_eth(box).device.gauge == "raw"
    for path in box.glob("*.csr"):  # the other triangle
        write_text(path, read_text(path)[:, [1, 0, 2]])
    lower = import_eth(box, fermi_energy_ev=fermi_energy_ev)
    np.testing.assert_array_equal(lower.device.overlap.values, run.device.overlap.values)


def test_eth_round_trip_of_the_lead(tmp_path):
    lead = imported("lead-tin")
    fermi_energy_ev = lead.device.provenance.fermi_energy_ev
    folder = write_eth(tmp_path / "lead", lead, raw_fermi_ev=fermi_energy_ev)
    with pytest.raises(VcmbenchError, match=r"a side of 4\.24 Å in a folded"):
        import_eth(folder)
    run = import_eth(folder, fermi_energy_ev=fermi_energy_ev, allow_folded=True)
    for found, expected in zip(dense(run, (0, 0, 0)), dense(lead, (0, 0, 0)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-10)
    assert run.device.pattern.distance.max() < 12


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("structure.xyz", "4.24, 4.24, 4.24", "no cell here", "three sides of the cell"),
        ("structure.xyz", "8\n", "9\n", "structure.xyz: sites: found 8, expected 9"),
        ("structure.xyz", "8\n", "eight\n", "no XYZ file"),
        ("structure.xyz", "Ti ", "Xx ", "symbol: found Xx"),
        ("structure.xyz", "Ti ", "Hf ", None),
        ("structure.xyz", "N ", "Ti ", "orbitals in S: found 56, expected 80"),
    ],
)
def test_bad_eth_folders_are_refused(tmp_path, file, old, new, message):
    folder = write_eth(tmp_path / "lead", imported("lead-tin"), raw_fermi_ev=0.0)
    edit(folder / file, old, new)
    if message is None:  # another element with as many orbitals cannot be told apart
        import_eth(folder, allow_folded=True)
        return
    with pytest.raises(VcmbenchError, match=message):
        import_eth(folder, allow_folded=True)


def test_eth_cell_as_an_option_and_missing_files(tmp_path):
    folder = write_eth(tmp_path / "lead", imported("lead-tin"), raw_fermi_ev=0.0)
    edit(folder / "structure.xyz", "4.24, 4.24, 4.24", "")
    import_eth(folder, allow_folded=True, cell_ang=[4.24, 4.24, 4.24])
    (folder / "S.csr").unlink()
    with pytest.raises(VcmbenchError, match=r"S\.csr: found no such file"):
        import_eth(folder, allow_folded=True, cell_ang=4.24 * np.eye(3))
    with pytest.raises(VcmbenchError, match="did you mean 'SZV-MOLOPT-SR-GTH'"):
        import_eth(folder, basis_set="SZV-MOLOPT-SR", cell_ang=4.24 * np.eye(3))


# DeepH

# Positions of DeepH's orbitals in ours, by name: written out, not computed.
OURS = {
    0: ["s"],
    1: ["y", "z", "x"],
    2: ["xy", "yz", "z2", "xz", "x2-y2"],
}
DEEPH = {
    0: ["s"],
    1: ["x", "y", "z"],
    2: ["z2", "x2-y2", "xy", "xz", "yz"],
}


def write_deeph(folder: Path, run, *, order=DEEPH) -> Path:
    """Write a run as DeepH-pack's interfaces do."""
    folder.mkdir()
    structure, basis = run.device.structure, run.device.basis
    np.savetxt(folder / "lat.dat", structure.cell.T)
    np.savetxt(folder / "site_positions.dat", structure.positions.T)
    np.savetxt(folder / "element.dat", structure.numbers, fmt="%d")
    species = [structure.species_list[s] for s in structure.species_index]
    (folder / "orbital_types.dat").write_text(
        "\n".join("  ".join(map(str, basis.shells_of(s))) for s in species) + "\n"
    )
    fermi_level = run.device.provenance.fermi_energy_ev
    info = {"nsites": len(species), "isspinful": False, "fermi_level": fermi_level}
    (folder / "info.json").write_text(json.dumps(info))
    columns = {}
    for one in basis.species:
        parts = [
            part.start + np.array([OURS[l].index(name) for name in order[l]])
            for l, part in basis.shell_slices(one)
        ]
        columns[one] = np.concatenate(parts)
    overlap = run.raw_overlap.align(run.raw_hamiltonian.pattern)
    hamiltonian = run.raw_hamiltonian + fermi_level * overlap
    for name, matrix in (("hamiltonians", hamiltonian), ("overlaps", overlap)):
        both = matrix.directed()
        pattern = both.pattern
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for block, ((i, j), shift) in enumerate(
                zip(pattern.pair.tolist(), pattern.shift.tolist(), strict=True)
            ):
                entries = both.values[pattern.offset[block] : pattern.offset[block + 1]]
                entries = entries.reshape(pattern.site_orbitals[i], pattern.site_orbitals[j])
                file[str([*shift, i + 1, j + 1])] = entries[
                    np.ix_(columns[species[i]], columns[species[j]])
                ]
    return folder


@pytest.fixture(scope="module")
def deeph(tmp_path_factory) -> Path:
    return write_deeph(tmp_path_factory.mktemp("deeph") / "lead", imported("lead-tin"))


def test_deeph_round_trip_of_the_lead(deeph):
    run, lead = import_deeph(deeph, orbital_order="openmx", code="CP2K"), imported("lead-tin")
    assert run.device.kind == "bulk"
    assert run.device.gauge == "fermi"
    assert not run.device.folded
    for k in KPOINTS:
        for found, expected in zip(dense(run, k), dense(lead, k), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-9)


def test_deeph_orbital_order_must_be_stated_and_is_checked(deeph, tmp_path):
    with pytest.raises(VcmbenchError, match="orbital_order: found none given"):
        import_deeph(deeph)
    with pytest.raises(VcmbenchError, match="S in the bond frame"):
        import_deeph(deeph, orbital_order="m-ascending")
    with pytest.raises(VcmbenchError, match="did you mean 'openmx'"):
        import_deeph(deeph, orbital_order="openmxx")
    folder = shutil.copytree(deeph, tmp_path / "stated")
    edit(folder / "info.json", "{", '{"orbital_order": "openmx", ')
    assert import_deeph(folder).checks


def test_openmx_order_is_that_of_the_harmonics():
    """f as OpenMX writes it: 5z2-3r2, 5xz2-xr2, 5yz2-yr2, zx2-zy2, xyz, x3-3xy2, 3yx2-y3."""
    x, y, z = vector = np.array([0.3, -0.5, 0.7])
    r2 = vector @ vector
    openmx = [
        (z * (5 * z**2 - 3 * r2)) / 2,
        x * (5 * z**2 - r2) * np.sqrt(3 / 8),
        y * (5 * z**2 - r2) * np.sqrt(3 / 8),
        z * (x**2 - y**2) * np.sqrt(15 / 4),
        x * y * z * np.sqrt(15),
        x * (x**2 - 3 * y**2) * np.sqrt(5 / 8),
        y * (3 * x**2 - y**2) * np.sqrt(5 / 8),
    ]
    ours = real_harmonics(3, vector) * np.sqrt(4 * np.pi / 7) * r2**1.5
    np.testing.assert_allclose(ours[openmx_permutation(3)], openmx, rtol=1e-12)
    assert [OURS[2][place] for place in openmx_permutation(2)] == DEEPH[2]
    assert [OURS[1][place] for place in openmx_permutation(1)] == DEEPH[1]
    with pytest.raises(VcmbenchError, match="l = 4"):
        openmx_permutation(4)


def spoil_spin(folder: Path) -> None:
    edit(folder / "info.json", '"isspinful": false', '"isspinful": true')


def spoil_shape(folder: Path) -> None:
    with h5py.File(folder / "hamiltonians.h5", "a") as file:
        del file["[0, 0, 0, 1, 1]"]
        file["[0, 0, 0, 1, 1]"] = np.zeros((4, 4))


def spoil_site(folder: Path) -> None:
    with h5py.File(folder / "overlaps.h5", "a") as file:
        file["[0, 0, 0, 9, 9]"] = np.eye(4)


def spoil_direction(folder: Path) -> None:
    with h5py.File(folder / "hamiltonians.h5", "a") as file:
        del file["[0, 0, 0, 2, 1]"]


def spoil_value(folder: Path) -> None:
    with h5py.File(folder / "overlaps.h5", "a") as file:
        file["[0, 0, 0, 1, 1]"][0, 0] = np.nan


def spoil_shells(folder: Path) -> None:
    edit(folder / "orbital_types.dat", "0  0  1  2\n0  1\n", "0  1  0  2\n0  1\n")


def spoil_file(folder: Path) -> None:
    (folder / "overlaps.h5").write_bytes(b"not HDF5")


def spoil_missing(folder: Path) -> None:
    (folder / "lat.dat").unlink()


def spoil_images(folder: Path) -> None:
    positions = np.loadtxt(folder / "site_positions.dat")
    positions[0, 0] += 4.24
    np.savetxt(folder / "site_positions.dat", positions)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_spin, "data without spin"),
        (spoil_shape, r"block \[0, 0, 0, 1, 1\]: found shape \(4, 4\), expected \(10, 10\)"),
        (spoil_site, r"keys: found sites 1\.\.9, expected 1\.\.8"),
        (spoil_direction, "H Hermitian"),
        (spoil_value, "found nan"),
        (spoil_shells, "shells of Ti"),
        (spoil_file, "cannot be read as DeepH blocks"),
        (spoil_missing, r"lat\.dat: cannot be read"),
        (spoil_images, r"max \|S\| beyond"),
    ],
)
def test_bad_deeph_folders_are_refused(deeph, tmp_path, spoil, message):
    folder = shutil.copytree(deeph, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(VcmbenchError, match=message):
        import_deeph(folder, orbital_order="openmx")


def test_failed_checks_are_all_named():
    failed = checks.Check("one", 2.0, "at most 1", False)
    skipped = checks.skipped("two", "no reason")
    with pytest.raises(VcmbenchError, match="here: one: found 2, expected at most 1"):
        checks.require("here", [failed, skipped])
    checks.require("here", [skipped])
