"""Regions of a TiN | HfO2 | Ti | TiN stack from its sites."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from importer_runs import unpacked

from vcmbench.errors import VcmbenchError
from vcmbench.importers.cp2k import structure_of
from vcmbench.importers.cp2k_input import read_input
from vcmbench.importers.regions import (
    check_contacts,
    infer_regions,
    join_first_layer,
    parse_regions,
)
from vcmbench.structure import Region, Structure

HF, TI, N, O = 72, 22, 7, 8


def tin_layers(n_layers: int, start: float) -> tuple[list[int], list[list[float]]]:
    """Layers of rocksalt TiN with 2 Ti and 2 N each, from `start` on."""
    numbers, positions = [], []
    for layer in range(n_layers):
        for y in (0, 1):
            for z in (0, 1):
                numbers.append(TI if (layer + y + z) % 2 == 0 else N)
                positions.append([start + 2.12 * layer, 2.12 * y, 2.12 * z])
    return numbers, positions


def make_stack(n_left: int, n_right: int, *, displacement: float = 0.0):
    """Numbers, wrapped positions and cell of a device with that many TiN layers."""
    numbers, positions = tin_layers(n_left, 0.0)
    oxide = 2.12 * (n_left - 1) + 1.9
    numbers += [O, HF, O, O, HF, O]
    positions += [[oxide + step, 1.0, 2.0 * (step % 2)] for step in (0, 1, 2, 3.2, 4.1, 5)]
    metal = oxide + 7.0
    numbers += [TI] * 4
    positions += [[metal + 2.2 * (site // 2), 2.12 * (site % 2), 0.0] for site in range(4)]
    right = metal + 2.2 + 2.1
    more = tin_layers(n_right, right)
    numbers += more[0]
    positions += more[1]
    length = right + 2.12 * n_right
    cell = np.diag([length, 4.24, 4.24])
    noise = np.random.default_rng(0).normal(size=(len(numbers), 3)).clip(-2, 2)
    moved = np.array(positions) + displacement * noise
    moved[:, 0] %= length
    return np.array(numbers), moved, cell


def inferred(n_left: int, n_right: int, displacement: float = 0.0) -> Structure:
    numbers, positions, cell = make_stack(n_left, n_right, displacement=displacement)
    joined = join_first_layer(positions, cell)
    structure = Structure.create(numbers, joined, cell, is_ghost=np.arange(len(numbers)) == 26)
    region = infer_regions(structure, "stack")
    check_contacts(structure, region, "stack")
    return Structure.create(numbers, joined, cell, region=region)


@pytest.mark.parametrize("displacement", [0.0, 0.05])
@pytest.mark.parametrize(("n_left", "n_right"), [(6, 6), (8, 6), (8, 10)])
def test_regions_of_a_stack(n_left, n_right, displacement):
    structure = inferred(n_left, n_right, displacement)
    counts = {region: int((structure.region == region).sum()) for region in Region}
    assert counts == {
        Region.NONE: 0,
        Region.LEFT_CONTACT: 24,
        Region.LEFT_BUFFER: 4 * (n_left - 6),
        Region.OXIDE: 6,
        Region.EXCHANGE_LAYER: 4,
        Region.RIGHT_BUFFER: 4 * (n_right - 6),
        Region.RIGHT_CONTACT: 24,
    }
    order = np.argsort(structure.positions[:, 0])
    assert (np.diff(structure.region[order]) >= 0).all()


def test_a_layer_that_the_boundary_splits_is_joined():
    _, wrapped, cell = make_stack(6, 6, displacement=0.05)
    split = wrapped[:, 0] > cell[0, 0] - 1
    assert 0 < split.sum() < 4
    joined = join_first_layer(wrapped, cell)
    np.testing.assert_allclose(joined[split, 0], wrapped[split, 0] - cell[0, 0])
    np.testing.assert_array_equal(joined[~split], wrapped[~split])
    np.testing.assert_allclose(join_first_layer(wrapped + 3 * cell[0], cell), joined, atol=1e-9)


@pytest.mark.parametrize(("n_left", "n_right"), [(5, 6), (6, 5), (4, 4)])
def test_a_device_too_short_for_its_contacts_is_refused(n_left, n_right):
    with pytest.raises(VcmbenchError, match="too short for its contacts"):
        inferred(n_left, n_right)


def test_no_oxide_or_no_right_contact_is_refused():
    numbers, positions = tin_layers(20, 0.0)
    cell = np.diag([20 * 2.12, 4.24, 4.24])
    with pytest.raises(VcmbenchError, match="no Hf or O"):
        infer_regions(Structure.create(numbers, positions, cell), "bulk")
    numbers[-1] = HF
    numbers[-4:-1] = [O, O, O]
    with pytest.raises(VcmbenchError, match="TiN"):
        infer_regions(Structure.create(numbers, positions, cell), "half")


def test_oblique_cells_cannot_be_devices():
    cell = np.array([[30.0, 0, 0], [1.0, 5, 0], [0, 0, 5]])
    with pytest.raises(VcmbenchError, match="a first vector along x"):
        join_first_layer(np.zeros((1, 3)), cell)


def test_annotated_regions():
    labels = np.array(["left-contact", "oxide", "right-contact"])
    expected = [Region.LEFT_CONTACT, Region.OXIDE, Region.RIGHT_CONTACT]
    np.testing.assert_array_equal(parse_regions(labels, "file"), expected)
    np.testing.assert_array_equal(parse_regions(np.array([0, 2, 5]), "file"), expected)
    with pytest.raises(VcmbenchError, match="region: found middle, expected none, left-contact"):
        parse_regions(np.array(["middle"]), "file")


def write_stack_input(folder: Path) -> tuple[Path, ase.Atoms]:
    """Input of a displaced stack with one vacancy, its sites wrapped into the cell."""
    numbers, positions, cell = make_stack(7, 6, displacement=0.05)
    atoms = ase.Atoms(numbers, positions, cell=cell, pbc=True)
    atoms.arrays["ghost"] = np.arange(len(numbers)) == 30
    labels = np.where(atoms.arrays["ghost"], "V", atoms.symbols)
    sites = "\n".join(
        f"{label} {x:.10f} {y:.10f} {z:.10f}"
        for label, (x, y, z) in zip(labels, positions, strict=True)
    )
    kinds = "".join(
        f"&KIND {e}\n BASIS_SET SZV-MOLOPT-SR-GTH\n&END\n" for e in ("Hf", "N", "Ti", "O")
    )
    kinds += "&KIND V\n ELEMENT O\n BASIS_SET SZV-MOLOPT-SR-GTH\n GHOST\n&END\n"
    text = (unpacked("lead-tin") / "in.inp").read_text()
    head = text[: text.index("&SUBSYS")]
    sides = " ".join(f"{side:.10f}" for side in np.diag(cell))
    path = folder / "in.inp"
    path.write_text(
        f"{head}&SUBSYS\n&CELL\nABC {sides}\n&END\n&COORD\n{sites}\n&END\n{kinds}&END\n&END\n"
    )
    return path, atoms


def test_regions_of_an_input_with_and_without_annotation(tmp_path):
    path, atoms = write_stack_input(tmp_path)
    run = read_input(path)
    alone = structure_of(tmp_path, run, "device")
    assert alone.is_ghost.tolist() == atoms.arrays["ghost"].tolist()
    assert (alone.positions[:, 0] < 0).any()
    assert (alone.region == Region.LEFT_BUFFER).sum() == 4
    assert alone.region[alone.is_ghost].tolist() == [Region.OXIDE]
    # Annotated: the seventh layer belongs to nobody's contact, but says it is oxide.
    named = np.array([Region(r).label for r in alone.region])
    named[named == "left-buffer"] = "oxide"
    atoms.arrays["region"] = named
    ase.io.write(tmp_path / "structure.extxyz", atoms, format="extxyz")
    annotated = structure_of(tmp_path, run, "device")
    assert (annotated.region == Region.LEFT_BUFFER).sum() == 0
    assert (annotated.region == Region.OXIDE).sum() == 10
    assert (structure_of(tmp_path, run, "bulk").region == Region.NONE).all()
    atoms.arrays["region"] = np.where(named == "oxide", "left-contact", named)
    ase.io.write(tmp_path / "structure.extxyz", atoms, format="extxyz")
    with pytest.raises(VcmbenchError, match="left-contact: found 14 Ti, 14 N and 6 other sites"):
        structure_of(tmp_path, run, "device")
