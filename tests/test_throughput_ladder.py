"""The ladder: supercells that are exact copies, whose blocks are known, and the slope."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from vcmbench.blocks import BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.models import load_model
from vcmbench.scores.result import Unavailable
from vcmbench.scores.timing import Delivered, count, deliver
from vcmbench.throughput.ladder import (
    SIZES,
    Copies,
    choose_copies,
    copies_residual,
    rungs,
    supercell,
)
from vcmbench.throughput.scaling import slope

CUTOFF_ANG = 8.0


@pytest.fixture(scope="module")
def unit(demo):
    return demo.device("device-b").hamiltonian


@pytest.fixture(scope="module")
def model():
    return load_model("species-mean").model


@pytest.mark.parametrize("n_sites", [80, 294, 358, 580])
def test_sizes_are_near_those_asked_for_and_compact(n_sites):
    for target in SIZES:
        copies = choose_copies(n_sites, target)
        found = copies.number * n_sites
        assert abs(found / target - 1) < 0.25 or found == n_sites
        if target >= 5_000:
            assert abs(found / target - 1) < 0.08
            assert copies.y <= 4 * copies.z
    ladder = rungs(n_sites, SIZES)
    assert [c.number for c in ladder] == sorted({c.number for c in ladder})


def test_sizes_below_the_device_are_the_device_once():
    assert rungs(358, [100, 300]) == [Copies(1, 1)]


def test_supercell_is_the_device_repeated(unit):
    structure = unit.pattern.structure
    copies = Copies(3, 2)
    found = supercell(structure, copies, "b")
    assert found.n_sites == 6 * structure.n_sites
    np.testing.assert_allclose(found.cell, np.diag([1, 3, 2]) @ structure.cell)
    # Folded back, every copy lies on the device.
    inverse = np.linalg.inv(structure.cell)
    away = (found.positions - np.tile(structure.positions, (6, 1))) @ inverse
    np.testing.assert_allclose(away, np.round(away), atol=1e-12)
    assert len(np.unique(np.round(away), axis=0)) == 6
    np.testing.assert_array_equal(found.is_ghost, np.tile(structure.is_ghost, 6))
    np.testing.assert_array_equal(found.region, np.tile(structure.region, 6))


def test_counts_are_those_of_the_expected_pattern(unit):
    copies = Copies(2, 2)
    structure = supercell(unit.pattern.structure, copies, "b")
    pattern = BlockPattern.from_structure(structure, unit.pattern.basis, CUTOFF_ANG)
    expected = count(unit, CUTOFF_ANG).copies(copies.number)
    assert expected.sites == structure.n_sites
    assert expected.edges == pattern.weight[~pattern.is_onsite].sum()
    near = unit.truncate(CUTOFF_ANG)
    assert pattern.n_entries == copies.number * near.pattern.n_entries


@pytest.mark.parametrize("copies", [Copies(2, 1), Copies(2, 2)])
def test_blocks_of_a_supercell_are_those_of_the_device(unit, model, copies):
    pattern = unit.pattern
    structure = supercell(pattern.structure, copies, "b")
    one = deliver(model, pattern.structure, CUTOFF_ANG).matrix(pattern.structure, pattern.basis)
    found = deliver(model, structure, CUTOFF_ANG)
    assert copies_residual(one, copies, found) < 1e-6
    # Each of these is a wrong answer for the supercell.
    wrong = found.values.copy()
    wrong[: len(wrong) // 8] *= 1.01
    assert copies_residual(one, copies, found._replace(values=wrong)) > 1e-4
    fewer = Delivered(found.pair[:-1], found.shift[:-1], found.values)
    assert math.isinf(copies_residual(one, copies, fewer))
    shifted = Delivered(found.pair, found.shift + np.int32(5), found.values)
    assert math.isinf(copies_residual(one, copies, shifted))


def test_dft_blocks_tile_as_the_check_assumes(unit):
    """The DFT matrix, unfolded to the supercell by hand, passes the check exactly."""
    copies, near = Copies(2, 1), unit.truncate(CUTOFF_ANG)
    pattern = near.pattern
    structure = supercell(pattern.structure, copies, "b")
    large = BlockPattern.from_structure(structure, pattern.basis, CUTOFF_ANG)
    n_unit, blocks = pattern.structure.n_sites, {}
    for index, (pair, shift) in enumerate(
        zip(pattern.pair.tolist(), pattern.shift.tolist(), strict=True)
    ):
        n_i, n_j = pattern.site_orbitals[pair]
        values = near.values[pattern.offset[index] : pattern.offset[index + 1]].reshape(n_i, n_j)
        blocks[*pair, *shift] = values
        blocks[*pair[::-1], *(-s for s in shift)] = values.T
    values = []
    for (i, j), (x, y, z) in zip(large.pair.tolist(), large.shift.tolist(), strict=True):
        inside = 2 * y + j // n_unit - i // n_unit
        values.append(blocks[i % n_unit, j % n_unit, x, inside, z].ravel())
    delivered = Delivered(large.pair, large.shift, np.concatenate(values).astype(np.float32))
    assert copies_residual(near, copies, delivered) < 1e-7


def test_structures_that_do_not_repeat_are_refused(unit):
    structure = unit.pattern.structure
    with pytest.raises(VcmbenchError, match="b: pbc"):
        supercell(replace(structure, pbc=np.array([True, True, False])), Copies(2, 1), "b")
    skewed = structure.cell.copy()
    skewed[1, 0] = 1.0
    with pytest.raises(VcmbenchError, match="b: cell"):
        supercell(replace(structure, cell=skewed), Copies(2, 1), "b")


def test_slope_and_its_uncertainty():
    sizes = [300, 1_000, 3_000, 10_000]
    exact = slope({n: 2e-4 * n**1.25 for n in sizes})
    assert exact.slope == pytest.approx(1.25)
    assert exact.standard_error == pytest.approx(0.0, abs=1e-9)
    assert exact.sizes == sizes
    # Against the textbook's formulas as numpy.polyfit has them.
    noisy = dict(zip(sizes, [0.1, 0.4, 0.9, 4.0], strict=True))
    x, y = np.log(sizes), np.log(list(noisy.values()))
    coefficients, covariance = np.polyfit(x, y, 1, cov=True)
    found = slope(noisy)
    assert found.slope == pytest.approx(coefficients[0])
    assert found.standard_error == pytest.approx(np.sqrt(covariance[0, 0]))
    assert slope({300: 1.0, 600: 2.0}).standard_error is None
    assert isinstance(slope({300: 1.0}), Unavailable)
