"""Import of CP2K runs: right on real data against independent oracles, and hard to fool."""

from __future__ import annotations

import re

import numpy as np
import pytest
from importer_runs import (
    DATA,
    RECORD,
    copied,
    dense,
    edit,
    imported,
    read_text,
    unpacked,
    write_binary,
    write_text,
)
from typer.testing import CliRunner

from vcmbench.basis import Species
from vcmbench.blocks import BlockPattern
from vcmbench.cli.import_ import app
from vcmbench.errors import VcmbenchError
from vcmbench.importers import checks, cp2k, import_cp2k
from vcmbench.importers.cp2k_input import parse, read_input
from vcmbench.importers.cp2k_log import read_log
from vcmbench.importers.cp2k_matrices import read_csr
from vcmbench.store import read_device
from vcmbench.units import HARTREE_EV


def measured(run, name: str) -> float:
    return next(float(check.value) for check in run.checks if name in check.name)


def quick(folder, **options):
    return import_cp2k(folder, kind="bulk", check_electrons=False, **options)


# On real data


def test_lead_holds_its_electrons():
    run = imported("lead-tin")
    assert abs(measured(run, "electrons") - 68) < 1e-6
    assert all(check.passed for check in run.checks)
    assert run.device.structure.n_sites == 8
    assert run.device.pattern.n_orbitals == 56
    assert run.device.gauge == "fermi"
    assert not run.device.folded


def test_lead_provenance():
    provenance = imported("lead-tin").device.provenance
    assert provenance.code_version == "2023.1"
    assert provenance.functional == "PBE"
    assert provenance.basis_sets == {"N": "SZV-MOLOPT-SR-GTH", "Ti": "SZV-MOLOPT-SR-GTH"}
    assert provenance.pseudopotentials == {"N": "GTH-PBE-q5", "Ti": "GTH-PBE-q12"}
    assert (provenance.cutoff_ry, provenance.rel_cutoff_ry) == (400, 50)
    assert provenance.kpoint_mesh == (6, 4, 4)
    assert provenance.smearing_temperature_k == 1000
    assert (provenance.scf_steps, provenance.scf_residual) == (14, 1.7e-7)
    assert provenance.fermi_energy_ev == pytest.approx(0.58561923586692 * HARTREE_EV, rel=1e-14)
    assert "&KPOINTS" in provenance.input_text


@pytest.mark.parametrize(("name", "tolerance"), [("lead-tin", 2e-8), ("mesh-text", 5e-7)])
def test_overlap_blocks_agree_with_pyscf(name, tolerance):
    """Orbital order, phases, ghosts and images at once; see data/make_overlap_reference.py."""
    reference = np.load(DATA / "overlap-reference.npz")
    overlap = imported(name).raw_overlap.directed()
    pattern = overlap.pattern
    rows = np.concatenate([pattern.pair, pattern.shift], axis=1).tolist()
    place = {tuple(row): block for block, row in enumerate(rows)}
    start, largest = 0, 0.0
    for key, shape in zip(reference[f"{name}/keys"], reference[f"{name}/sizes"], strict=True):
        expected = reference[f"{name}/values"][start : start + shape.prod()].reshape(shape)
        start += shape.prod()
        largest = max(largest, np.abs(expected).max())
        if tuple(key) not in place:
            assert np.abs(expected).max() < 1e-5
            continue
        block = place[tuple(key)]
        found = overlap.values[pattern.offset[block] : pattern.offset[block + 1]].reshape(shape)
        np.testing.assert_allclose(found, expected, atol=tolerance)
    assert largest > 0.1


def test_device_holds_every_pair_within_the_support():
    run = imported("lead-tin")
    pattern = run.device.pattern
    wanted = BlockPattern.from_structure(pattern.structure, pattern.basis, 12.0)
    assert pattern.n_blocks == wanted.n_blocks > run.raw_overlap.pattern.n_blocks
    near = run.raw_hamiltonian.truncate(12.0).align(pattern)
    np.testing.assert_array_equal(run.device.hamiltonian.values, near.values)
    assert run.raw_hamiltonian.pattern.distance.max() > 12.0


def test_ghost_and_shells_of_two_basis_sets():
    device = imported("mesh-text").device
    assert device.structure.species_list[1] == Species(8, True)
    assert device.basis.shells[Species(8, True)] == (0, 0, 1, 1, 2)
    assert device.basis.name == "DZVP-MOLOPT-SR-GTH+SZV-MOLOPT-SR-GTH"
    assert device.provenance.pseudopotentials.keys() == {"H", "Na", "Cl"}


def test_eigenvalues_agree_with_those_that_cp2k_printed():
    for name in ("mesh-text", "gamma-box"):
        # Six decimals of a Hartree.
        assert measured(imported(name), "printed") < 0.6e-6 * HARTREE_EV


def test_folded_run_keeps_the_sum_and_takes_the_nearest_image():
    run = imported("gamma-box")
    table = read_text(unpacked("gamma-box") / "mini-KS_SPIN_1-1_0.csr")
    fermi_energy_ha = run.device.provenance.fermi_energy_ev / HARTREE_EV
    n = run.device.pattern.n_orbitals
    expected = np.zeros((n, n))
    rows, columns = table[:, :2].astype(int).T - 1
    expected[rows, columns] = expected[columns, rows] = table[:, 2]
    h, s = dense(run, (0, 0, 0))
    np.testing.assert_allclose(h / HARTREE_EV + fermi_energy_ha * s, expected, atol=1e-13)
    assert run.device.folded
    # H and Na bond across three faces of the cell: as neighbours they are 2.9 Å apart.
    pattern = run.device.pattern
    assert pattern.distance.max() < 6
    assert (np.abs(pattern.shift).sum(axis=1) == 3).any()


def test_text_and_binary_are_equivalent(tmp_path):
    folder = copied("mesh-text", tmp_path)
    for path in folder.glob("*.csr"):
        write_binary(path, read_text(path))
    for found, expected in zip(
        dense(quick(folder), (0.1, 0.2, 0.3)), dense(imported("mesh-text"), (0.1, 0.2, 0.3)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(found, expected)
    binary = unpacked("lead-tin") / "vcm-KS_SPIN_1_R_7-1_0.csr"
    records = np.fromfile(binary, RECORD)
    table = np.stack([records["row"], records["col"], records["value"]], axis=1)
    write_text(tmp_path / "text.csr", table)
    for found, expected in zip(read_csr(tmp_path / "text.csr"), read_csr(binary), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-15)


def full_listing(folder):
    """Rewrite the matrices as CP2K prints them without UPPER_TRIANGULAR."""
    images = {tuple(row): n + 1 for n, row in enumerate(read_log(folder / "out.log").images["S"])}
    for operator in ("KS", "S"):
        name = f"mini-{operator}_SPIN_1_R_{{}}-1_0.csr"
        upper = {key: read_text(folder / name.format(n)) for key, n in images.items()}
        for key, n in images.items():
            mirror = upper[tuple(-component for component in key)]
            mirror = mirror[mirror[:, 0] != mirror[:, 1]][:, [1, 0, 2]]
            write_text(folder / name.format(n), np.concatenate([upper[key], mirror]))
    edit(folder / "in.inp", "UPPER_TRIANGULAR", "UPPER_TRIANGULAR F")


def test_both_triangles_or_one(tmp_path):
    folder = copied("mesh-text", tmp_path)
    full_listing(folder)
    for found, expected in zip(
        dense(quick(folder), (0.1, 0.2, 0.3)), dense(imported("mesh-text"), (0.1, 0.2, 0.3)),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(found, expected, atol=1e-13)
    edit(folder / "in.inp", "UPPER_TRIANGULAR F", "UPPER_TRIANGULAR")
    with pytest.raises(VcmbenchError, match="expected row <= column throughout"):
        quick(folder)


# Images


@pytest.mark.parametrize("name", ["lead-tin", "mesh-text"])
def test_wrong_images_are_refused_by_the_decay_of_the_overlap(monkeypatch, name):
    monkeypatch.setattr(cp2k, "wrapping", lambda s: np.zeros((s.n_sites, 3), int))
    monkeypatch.setattr(cp2k, "misplaced", lambda _overlap, shift: 0 * shift)
    with pytest.raises(
        VcmbenchError, match=r"max \|S\| beyond 6 Å: found 0\.\d+, expected at most"
    ):
        quick(unpacked(name))


def test_wrong_images_leave_the_bands_untouched(monkeypatch):
    """Why no band test can stand in for the decay of S."""
    monkeypatch.setattr(cp2k, "wrapping", lambda s: np.zeros((s.n_sites, 3), int))
    monkeypatch.setattr(cp2k, "misplaced", lambda _overlap, shift: 0 * shift)
    monkeypatch.setattr(checks, "require", lambda _source, _checks: None)
    wrong, right = quick(unpacked("mesh-text")), imported("mesh-text")
    k = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(
        checks.eigenvalues(wrong.raw_hamiltonian, wrong.raw_overlap, k),
        checks.eigenvalues(right.raw_hamiltonian, right.raw_overlap, k),
        atol=1e-9,
    )


def test_sites_at_half_a_lattice_vector_are_put_where_the_overlap_says(monkeypatch):
    """The code's last bit decides whether L/2 wraps: either guess must end at the same matrix."""
    right = imported("lead-tin")
    fractional = right.device.structure.positions / 4.24
    assert (np.abs(fractional - 0.5) < 1e-12).sum() == 12
    for guess in (np.floor(fractional + 0.5), np.ceil(fractional - 0.5)):
        monkeypatch.setattr(cp2k, "wrapping", lambda _s, guess=guess: guess.astype(int))
        found = quick(unpacked("lead-tin")).raw_hamiltonian
        np.testing.assert_array_equal(found.pattern.shift, right.raw_hamiltonian.pattern.shift)
        np.testing.assert_array_equal(found.values, right.raw_hamiltonian.values)


def test_positions_outside_the_cell_change_nothing_but_shifts(tmp_path):
    folder = copied("mesh-text", tmp_path)
    edit(folder / "in.inp", "Cl 1.4 0.1 0.1", "Cl 10.4 -7.9 0.1")
    moved, right = quick(folder), imported("mesh-text")
    np.testing.assert_allclose(
        np.sort(moved.raw_overlap.pattern.distance),
        np.sort(right.raw_overlap.pattern.distance),
        atol=1e-9,
    )
    k = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(
        checks.eigenvalues(moved.raw_hamiltonian, moved.raw_overlap, k),
        checks.eigenvalues(right.raw_hamiltonian, right.raw_overlap, k),
        atol=1e-9,
    )


# Runs that are not what they seem


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("out.log", "PROGRAM ENDED AT", "PROGRAM", "the run did not end"),
        ("out.log", "SCF run converged in    18 steps", "SCF run NOT converged", "not converged"),
        ("out.log", "CP2K version 2023.1", "something else", "expected the output of CP2K"),
        ("out.log", "  39 periodic images", "  40 periodic images", "incomplete table"),
        ("out.log", "-0.06141142987456", "-0.05141142987456", "electrons below the Fermi level"),
        ("out.log", "6.000000      5.000000      4.000000", "6.000000      5.500000      4.000000",
         "another run's log"),
        ("out.log", "K-Point grid                                             1    2    2",
         "K-Point grid                                             1    2    4", "K-point grid"),
        ("out.log", "electrons:                                                         17",
         "electrons:                                                         18", "electrons"),
        ("out.log", "Fermi energy: ", "Mystery energy: ", None),
        ("in.inp", "Na 8.8", "Na 8.7", "another run's log"),
        ("in.inp", "BASIS_SET DZVP", "BASIS_SET TZVP", "kind"),
        ("in.inp", "      &S_CSR_WRITE", "      &P_CSR_WRITE", "S_CSR_WRITE"),
        ("in.inp", "RUN_TYPE ENERGY", "RUN_TYPE GEO_OPT", "RUN_TYPE: found GEO_OPT"),
        ("in.inp", "PROJECT mini", "PROJECT maxi", "found 0 files"),
        ("in.inp", "&END SUBSYS", "&END CELL", r"line \d+: found &END CELL, expected &END SUBSYS"),
        ("in.inp", "SCHEME MONKHORST-PACK", "SCHEME MACDONALD", "MONKHORST-PACK nx ny nz"),
        ("in.inp", "    &COORD", "    &TOPOLOGY\n &CENTER_COORDINATES\n &END\n &END\n    &COORD",
         "CENTER_COORDINATES"),
        ("in.inp", "    &QS", "    UKS\n    &QS", "spin-restricted"),
        ("in.inp", "GHOST", "GHOST F", "kind V"),
        ("in.inp", "METHOD QS", "@IF ${X}", "@SET"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_whole_or_not_one_is_refused(tmp_path, file, old, new, message):
    folder = copied("mesh-text", tmp_path)
    path = folder / file
    text = path.read_text()
    old = (
        old if "converged in" not in old else re.search(r"SCF run converged in +\d+ steps", text)[0]
    )
    edit(path, old, new)
    if message is None:  # no Fermi energy: bulk data in the code's own gauge
        run = import_cp2k(folder, kind="bulk")
        assert run.device.gauge == "raw"
        assert run.device.provenance.fermi_energy_ev is None
        return
    with pytest.raises(VcmbenchError, match=message):
        import_cp2k(folder, kind="bulk")


def test_only_the_last_run_of_a_log_counts(tmp_path):
    folder = copied("mesh-text", tmp_path)
    text = (folder / "out.log").read_text()
    interrupted = text[: text.index("SCF WAVEFUNCTION OPTIMIZATION")]
    (folder / "out.log").write_text(interrupted + text)
    assert (
        quick(folder).device.provenance.scf_steps
        == imported("mesh-text").device.provenance.scf_steps
    )
    (folder / "out.log").write_text(text + interrupted)
    with pytest.raises(VcmbenchError, match="did not end"):
        quick(folder)


def test_truncated_files_are_refused(tmp_path):
    folder = copied("lead-tin", tmp_path)
    path = folder / "vcm-KS_SPIN_1_R_1-1_0.csr"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(VcmbenchError, match=r"R_1-1_0\.csr: size: .*the file is truncated"):
        quick(folder)
    path.write_bytes(whole[:240])
    with pytest.raises(VcmbenchError, match="H: pairs within 6 Å without a block"):
        quick(folder)
    path.write_bytes(whole[:24] + b"\1" + whole[25:])
    with pytest.raises(VcmbenchError, match="record 1: found markers"):
        quick(folder)


def test_truncated_text_is_refused(tmp_path):
    path = tmp_path / "S.csr"
    path.write_text("       1       1 0.100E+001\n       1       2")
    with pytest.raises(VcmbenchError, match="not three numbers per line"):
        read_csr(path)
    path.write_text("hello world\n")
    with pytest.raises(VcmbenchError, match="not three numbers per line"):
        read_csr(path)


def test_missing_and_surplus_images_are_refused(tmp_path):
    folder = copied("mesh-text", tmp_path)
    path = folder / "mini-S_SPIN_1_R_5-1_0.csr"
    path.rename(folder / "mini-S_SPIN_1_R_40-1_0.csr")
    with pytest.raises(VcmbenchError, match="without image 5 with image 40, expected 39 files"):
        quick(folder)


def test_an_emptied_image_is_not_hermitian(tmp_path):
    folder = copied("mesh-text", tmp_path)
    images = read_log(folder / "out.log").images["KS"].tolist()
    (folder / f"mini-KS_SPIN_1_R_{images.index([0, 0, 1]) + 1}-1_0.csr").write_text("")
    with pytest.raises(VcmbenchError, match=r"H Hermitian, max \|M\(R\) - M\(-R\)\^T\|"):
        quick(folder)


def test_matrices_of_another_run_are_refused(tmp_path):
    folder = copied("mesh-text", tmp_path)
    table = read_text(folder / "mini-S_SPIN_1_R_1-1_0.csr")
    table[-1, :2] = 28
    write_text(folder / "mini-S_SPIN_1_R_1-1_0.csr", table)
    with pytest.raises(VcmbenchError, match=r"orbital indices: found 1\.\.28, expected 1\.\.27"):
        quick(folder)


def test_overlap_of_other_positions_is_refused(tmp_path):
    """Same size, same images, one site elsewhere: the overlap tells."""
    folder = copied("mesh-text", tmp_path)
    edit(folder / "in.inp", "Na 8.8 3.9 3.0", "Na 8.8 3.8 3.1")
    edit(
        folder / "out.log",
        "8.800000      3.900000      3.000000",
        "8.800000      3.800000      3.100000",
    )
    with pytest.raises(VcmbenchError, match="S in the bond frame"):
        quick(folder)


def test_swapped_matrices_are_refused(tmp_path):
    folder = copied("mesh-text", tmp_path)
    for image in range(1, 40):
        ks, s = (folder / f"mini-{name}_SPIN_1_R_{image}-1_0.csr" for name in ("KS", "S"))
        saved = ks.read_bytes()
        ks.write_bytes(s.read_bytes())
        s.write_bytes(saved)
    with pytest.raises(VcmbenchError, match="unit diagonal"):
        quick(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_no_numbers_are_named(tmp_path, value):
    folder = copied("mesh-text", tmp_path)
    path = folder / "mini-KS_SPIN_1_R_1-1_0.csr"
    table = read_text(path)
    table[3, 2] = value
    write_binary(path, table)
    with pytest.raises(
        VcmbenchError, match=rf"KS_SPIN_1_R_1-1_0\.csr: entry \(1, 4\): found {value}"
    ):
        quick(folder)


def test_repeated_entries_are_refused(tmp_path):
    folder = copied("mesh-text", tmp_path)
    path = folder / "mini-KS_SPIN_1_R_1-1_0.csr"
    write_text(path, read_text(path)[[0, 1, 1, 2]])
    with pytest.raises(VcmbenchError, match=r"entry \(1, 2\): found 2 times"):
        quick(folder)


def test_folded_run_in_a_short_cell_is_refused_unless_allowed():
    with pytest.raises(VcmbenchError, match=r"a side of 24\.20 Å .* at least 26 Å"):
        quick(unpacked("gamma-box"), support_ang=13.0)
    run = quick(unpacked("gamma-box"), support_ang=13.0, allow_folded=True)
    assert any(check.passed is None for check in run.checks)


def test_structure_file_must_agree_with_the_input(tmp_path):
    folder = copied("lead-tin", tmp_path)
    edit(folder / "structure.extxyz", "N        0.00000000       0.00000000", "N  0.1 0.0")
    with pytest.raises(
        VcmbenchError, match=r"extxyz: positions and cell: found differences of 0\.1"
    ):
        quick(folder)
    edit(folder / "structure.extxyz", "N  0.1 0.0", "O  0.0 0.0")
    with pytest.raises(VcmbenchError, match=r"extxyz: site 2: found O, expected N"):
        quick(folder)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(VcmbenchError, match="no such folder"):
        quick(tmp_path / "nothing")
    with pytest.raises(VcmbenchError, match=r"no \*\.inp"):
        quick(tmp_path)
    (tmp_path / "a.inp").write_text("&GLOBAL\n&END\n")
    with pytest.raises(VcmbenchError, match="a CP2K DFT input"):
        quick(tmp_path)


def test_a_bulk_cell_is_no_device():
    with pytest.raises(VcmbenchError, match="no Hf or O"):
        import_cp2k(unpacked("lead-tin"), check_electrons=False)


# Inputs


def test_log_without_kinds_falls_back_on_the_table(tmp_path):
    folder = copied("mesh-text", tmp_path)
    edit(folder / "out.log", "ATOMIC KIND INFORMATION", "")
    assert quick(folder).device.basis.shells == imported("mesh-text").device.basis.shells


def test_input_variants_mean_the_same(tmp_path):
    folder = copied("mesh-text", tmp_path)
    path = folder / "in.inp"
    cell = np.array([9.0, 8.0, 7.0])
    expected = read_input(path)
    scaled = "\n".join(
        f"{label} " + " ".join(f"{x:.17g}" for x in position / cell)
        for label, position in zip(expected.labels, expected.positions, strict=True)
    )
    (folder / "sites.inc").write_text("SCALED\n" + scaled + "\n")
    text = re.sub(
        r"&COORD.*?&END COORD", "&coord\n@INCLUDE sites.inc\n&END", path.read_text(), flags=re.S
    )
    text = text.replace("ABC 9.0 8.0 7.0", "A 9 0 0\n B [bohr] 0 15.117809 0 ! Å\n C 0 0 ${LZ}")
    text = "@SET LZ 7.0\n" + text.replace("CUTOFF 200", "cutoff [hartree] 1.0D+2")
    path.write_text(text)
    found = read_input(path)
    assert found.labels == expected.labels
    np.testing.assert_allclose(found.positions, expected.positions, atol=1e-6)
    np.testing.assert_allclose(found.cell, expected.cell, atol=1e-6)
    assert found.cutoff_ry == expected.cutoff_ry
    assert "C 0 0 7.0" in found.text
    assert found.n_electrons == 17


def test_sites_in_a_file_of_their_own(tmp_path):
    folder = copied("mesh-text", tmp_path)
    path = folder / "in.inp"
    expected = read_input(path)
    rows = re.search(r"&COORD(.*?)&END COORD", path.read_text(), re.DOTALL)[1].strip()
    topology = "&TOPOLOGY\nCOORD_FILE_NAME s.xyz\nCOORD_FILE_FORMAT XYZ\n&END"
    text = re.sub(r"&COORD.*?&END COORD", topology, path.read_text(), flags=re.DOTALL)
    path.write_text(text)
    with pytest.raises(VcmbenchError, match=r"s\.xyz: cannot be read as XYZ"):
        read_input(path)
    (folder / "s.xyz").write_text(f"4\n\n{rows}\n")
    assert read_input(path).labels == expected.labels
    np.testing.assert_array_equal(read_input(path).positions, expected.positions)
    edit(path, "FORMAT XYZ", "FORMAT PDB")
    with pytest.raises(VcmbenchError, match="COORD_FILE_FORMAT: found PDB, expected XYZ"):
        read_input(path)


def test_labels_of_kinds_ignore_case(tmp_path):
    folder = copied("mesh-text", tmp_path)
    edit(folder / "in.inp", "Cl 1.4", "CL 1.4")
    assert quick(folder).device.structure.numbers[1] == 17


def test_cells_that_are_not_orthorhombic(tmp_path):
    folder = copied("mesh-text", tmp_path)
    edit(folder / "in.inp", "ABC 9.0 8.0 7.0", "ABC 9.0 8.0 7.0\n ALPHA_BETA_GAMMA 90 90 60")
    cell = read_input(folder / "in.inp").cell
    np.testing.assert_allclose(cell, [[9, 0, 0], [4, 4 * 3**0.5, 0], [0, 0, 7]], atol=1e-12)


def test_sections_keep_their_parameters_and_repeated_keywords():
    tree = parse("&A x y ! comment\n K 1 2\n K 3\n &B\n &END b\n&END\n# &C\n", "text")
    assert tree.sections["A"][0].parameter == "x y"
    assert tree.sections["A"][0].keywords == {"K": ["1 2", "3"]}
    assert tree.find("A", "B") is not None
    with pytest.raises(VcmbenchError, match="expected &END A"):
        parse("&A\n", "text")


# The command


def test_command_writes_a_store_and_shows_every_check(tmp_path):
    store = tmp_path / "box.zarr.zip"
    arguments = ["cp2k", str(unpacked("gamma-box")), "--output", str(store), "--kind", "bulk"]
    result = CliRunner().invoke(app, [*arguments, "--id", "box"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert result.output.count("passed") == len(imported("gamma-box").checks)
    assert "17.0000000" in result.output
    device = read_device(store)
    assert device.id == "box"
    np.testing.assert_allclose(
        device.hamiltonian.values, imported("gamma-box").device.hamiltonian.values, atol=5.1e-7
    )
    result = CliRunner().invoke(app, ["cp2k", str(tmp_path), "--output", str(store)])
    assert isinstance(result.exception, VcmbenchError)
