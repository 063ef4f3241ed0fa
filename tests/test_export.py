"""A device in other codes: the same matrices at every wave vector."""

from __future__ import annotations

import ast
import itertools
import tomllib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.sparse
from typer.testing import CliRunner

from vcmbench.blocks import BlockMatrix
from vcmbench.cli import app
from vcmbench.errors import VcmbenchError
from vcmbench.exporters.quatrex_export import write_quatrex
from vcmbench.exporters.sisl_export import to_sisl, write_sisl
from vcmbench.release import find_release
from vcmbench.store import write_predictions

sisl = pytest.importorskip("sisl")

KPOINTS = [(0.0, 0.0, 0.0), (0.13, 0.25, -0.4)]


@pytest.fixture(scope="module", params=["device-b", "lead-tin"])
def entry(demo, request):
    name = request.param
    return demo.lead(name) if name.startswith("lead") else demo.device(name)


@pytest.fixture(scope="module")
def exported(entry):
    return to_sisl(entry.hamiltonian, entry.overlap)


@pytest.mark.parametrize("k", KPOINTS)
def test_same_matrices_at_every_wave_vector(entry, exported, k):
    for ours, theirs in (
        (entry.hamiltonian, exported.Hk(k, gauge="lattice")),
        (entry.overlap, exported.Sk(k, gauge="lattice")),
    ):
        difference = ours.to_csr(k) - theirs
        assert abs(difference).max() < 1e-12
    # Complex matrices: a wrong sign of the phase would be seen.
    assert k == KPOINTS[0] or abs(entry.hamiltonian.to_csr(k).imag).max() > 0.1


def test_sites_and_orbitals(entry, exported):
    structure = entry.structure
    geometry = exported.geometry
    np.testing.assert_array_equal(geometry.xyz, structure.positions)
    np.testing.assert_array_equal(geometry.lattice.cell, structure.cell)
    np.testing.assert_array_equal(geometry.atoms.Z, structure.numbers)
    ghosts = [isinstance(atom, sisl.AtomGhost) for atom in geometry.atoms]
    assert ghosts == structure.is_ghost.tolist()
    np.testing.assert_array_equal(geometry.orbitals, entry.pattern.site_orbitals)
    assert geometry.atoms[0].orbitals[1].tag.split() == [
        str(entry.basis.shells_of(structure.species_list[structure.species_index[0]])[1]),
        str(-entry.basis.shells_of(structure.species_list[structure.species_index[0]])[1]),
    ]


def test_file_is_read_back(demo, tmp_path):
    entry = demo.lead("lead-tin")
    exported = to_sisl(entry.hamiltonian, entry.overlap)
    path = tmp_path / "entry.TSHS"
    write_sisl(path, entry.hamiltonian, entry.overlap)
    assert [p.name for p in tmp_path.iterdir()] == ["entry.TSHS"]
    again = sisl.get_sile(path).read_hamiltonian()
    k = KPOINTS[1]
    found = again.Hk(k, gauge="lattice") - exported.Hk(k, gauge="lattice")
    assert abs(found).max() < 1e-6  # Rydberg and another constant for it
    assert abs(again.Sk(k, gauge="lattice") - exported.Sk(k, gauge="lattice")).max() < 1e-12


def test_command_exports_dft_and_predictions(demo, tmp_path):
    entry = demo.lead("lead-tin")
    run = CliRunner().invoke
    result = run(app, ["data", "export", "lead-tin", str(tmp_path / "dft.TSHS")])
    assert result.exit_code == 0, result.output
    write_predictions(tmp_path / "mine", "lead-tin", 2 * entry.hamiltonian, gauge="fermi")
    options = ["--model", str(tmp_path / "mine")]
    result = run(app, ["data", "export", "lead-tin", str(tmp_path / "mine.TSHS"), *options])
    assert result.exit_code == 0, result.output
    dft, mine = (
        sisl.get_sile(tmp_path / name).read_hamiltonian().Hk() for name in ("dft.TSHS", "mine.TSHS")
    )
    assert abs(mine - 2 * dft).max() < 1e-6
    result = run(app, ["data", "export", "lead-tin", str(tmp_path / "x.what")])
    assert isinstance(result.exception, VcmbenchError)
    assert "x.what: suffix: found .what, expected .TSHS" in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dft.TSHS", "mine", "mine.TSHS"]


# --- QuaTrEx --------------------------------------------------------------------------------------


def images(path):
    """Matrices of a file by image, read as QuaTrEx does."""
    found = {}
    with h5py.File(path) as file:
        for name, group in file.items():
            assert group.attrs["format"] == "csr"
            parts = (group[key][...] for key in ("data", "indices", "indptr"))
            found[tuple(ast.literal_eval(name)[1:])] = scipy.sparse.csr_array(
                tuple(parts), shape=tuple(group.attrs["shape"])
            )
            assert ast.literal_eval(name)[0] == 0
    return found


@pytest.fixture(scope="module")
def buffered():
    """A device with a cell of buffer after each contact, and with vacancies."""
    return find_release("vcm-nano").device("s06-v2")


@pytest.fixture(scope="module")
def quatrex(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quatrex") / "device.quatrex"
    arguments = ["data", "export", "s06-v2", str(folder), "--dataset", "vcm-nano"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder


def test_quatrex_images_are_complete_and_hermitian(quatrex):
    for name in ("hamiltonian", "overlap"):
        found = images(quatrex / "inputs" / f"{name}.h5")
        sides = [range(-max(r[i] for r in found), max(r[i] for r in found) + 1) for i in (0, 1)]
        assert set(found) == set(itertools.product(*sides))
        for (y, z), matrix in found.items():
            assert abs(matrix - found[-y, -z].T).max() == 0


def test_quatrex_matrices_are_those_of_the_open_device(buffered, quatrex):
    """The same up to phases of the sites that were moved into the cell."""
    device = buffered
    k = np.array([0.0, 0.21, -0.36])
    site = np.repeat(np.arange(device.structure.n_sites), device.pattern.site_orbitals)
    positions = np.array(
        [
            line.split()[1:4]
            for line in (quatrex / "inputs/structure.xyz").read_text().splitlines()[2:]
        ],
        dtype=float,
    )
    moved = (device.structure.positions - positions) @ np.linalg.inv(device.structure.cell)
    assert np.abs(moved - np.round(moved)).max() < 1e-8
    gauge = scipy.sparse.diags_array(np.exp(2j * np.pi * (np.round(moved) @ k))[site])
    for name, ours in (("hamiltonian", device.hamiltonian), ("overlap", device.overlap)):
        parts = images(quatrex / "inputs" / f"{name}.h5")
        theirs = sum(np.exp(2j * np.pi * (k[1:] @ r)) * matrix for r, matrix in parts.items())
        # Blocks that cross the boundary along x are those that QuaTrEx would drop.
        open_x = ours.select(_stays_inside(ours.pattern, moved))
        difference = gauge @ theirs @ gauge.conj() - open_x.to_csr(k)
        assert abs(difference).max() < 1e-12
        assert abs(theirs.imag).max() > 0.1


def _stays_inside(pattern, moved):
    x = np.round(moved[:, 0]).astype(int)
    return pattern.shift[:, 0] + x[pattern.pair[:, 1]] - x[pattern.pair[:, 0]] == 0


def test_quatrex_finds_both_contacts(buffered, quatrex):
    config = tomllib.loads((quatrex / "quatrex_config.toml").read_text())
    lines = (quatrex / "inputs/structure.xyz").read_text().splitlines()
    assert lines[1].startswith('Lattice="')
    symbols, *columns = zip(*(line.split() for line in lines[2:]), strict=True)
    positions = np.array(columns, dtype=float).T
    device = buffered
    assert config["formalism"] == "wf"
    assert config["device"]["kpoint_grid"] == list(device.provenance.kpoint_mesh)
    orbitals = config["device"]["num_orbitals_per_atom"]
    assert [orbitals[s] for s in symbols] == device.pattern.site_orbitals.tolist()
    assert [s == "V" for s in symbols] == device.structure.is_ghost.tolist()
    regions = [(0, 1), (5, 4)]
    for contact, inside in zip(config["device"]["contacts"], regions, strict=True):
        place = (positions - contact["origin"]) @ np.linalg.inv(contact["lattice_vectors"])
        cell = np.floor(place[:, 0]).astype(int)
        assert cell.min() == 0
        # Three cells of contact, one of buffer, each with all atoms of its cross-section.
        assert np.bincount(cell)[:4].tolist() == [32] * 4
        assert set(device.structure.region[cell < 3]) == {inside[0]}
        assert set(device.structure.region[cell == 3]) == {inside[1]}
        # No atom plane of the ideal contact near a border of a cell.
        border = np.abs(place[cell < 3] - np.round(place[cell < 3]))
        assert border.min() > 0.2


def test_quatrex_refuses_what_it_cannot_take(demo, buffered, quatrex, tmp_path):
    device, lead = buffered, find_release("vcm-nano").lead("lead-tin")
    arguments = device.hamiltonian, device.overlap, lead.structure
    with pytest.raises(VcmbenchError, match="folder: found one that exists"):
        write_quatrex(quatrex, *arguments, kpoint_mesh=(1, 2, 2))
    positions = device.structure.positions.copy()
    positions[np.flatnonzero(device.structure.region == 1)[0], 1] += 0.5
    moved = [
        BlockMatrix(replace(m.pattern, structure=device.structure.moved(positions)), m.values)
        for m in (device.hamiltonian, device.overlap)
    ]
    with pytest.raises(VcmbenchError, match="left contact: cells: found cell 4 of 4 is not"):
        write_quatrex(tmp_path / "x", *moved, lead.structure, kpoint_mesh=(1, 2, 2))
    assert list(tmp_path.iterdir()) == []
    short = demo.device("device-b")
    with pytest.raises(VcmbenchError, match="left contact: cells: found cell 4 of 4 is not"):
        write_quatrex(
            tmp_path / "x", short.hamiltonian, short.overlap, lead.structure, kpoint_mesh=(1, 2, 2)
        )
    assert list(tmp_path.iterdir()) == []
    result = CliRunner().invoke(app, ["data", "export", "lead-tin", str(tmp_path / "l.quatrex")])
    assert "contacts: found none" in str(result.exception)
