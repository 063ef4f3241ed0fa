"""Measures of a structure against structures whose values are known."""

from dataclasses import replace

import numpy as np
import pytest
from build_toys import toy_device, toy_spec

from vcmbench.build.metal import HF, O, metal_stack
from vcmbench.build.order import order_correlation
from vcmbench.build.quality import measure
from vcmbench.build.spec import HFO2_MASS_U
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Region, Structure

FLUORITE_ANG = 5.088


def _with_oxide(numbers, positions, spec):
    """Electrodes of `spec` with other ions in their gap."""
    stack = metal_stack(spec)
    before = (stack.region <= Region.LEFT_BUFFER).sum()
    return Structure.create(
        np.insert(stack.numbers, before, numbers),
        np.insert(stack.positions, before, positions, axis=0),
        np.diag(stack.cell_ang),
        region=np.insert(stack.region, before, np.full(len(numbers), Region.OXIDE)),
    )


def _fluorite(n_cells, noise_ang=0.0):
    """Cubic HfO2: 4 Hf and 8 O per cell, starting at the origin."""
    hafnium = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]]) / 4
    oxygen = np.stack(np.meshgrid(*[[1, 3]] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 4
    cell = np.concatenate([hafnium, oxygen])
    shifts = np.stack(np.meshgrid(*map(np.arange, n_cells), indexing="ij"), axis=-1)
    positions = (shifts.reshape(-1, 1, 3) + cell).reshape(-1, 3) * FLUORITE_ANG
    numbers = np.tile([HF] * 4 + [O] * 8, np.prod(n_cells))
    rng = np.random.default_rng(0)
    return numbers, positions + rng.normal(0, noise_ang, positions.shape)


def test_crystal_is_recognised():
    """Fluorite on 25.44 Å, which holds five cells almost exactly, is rejected as crystallised."""
    spec = toy_spec(cross_section_ang=25.44, oxide_units=500)
    stack = metal_stack(spec)
    left, right = stack.oxide_ang
    numbers, positions = _fluorite((4, 5, 5), noise_ang=0.1)
    middle = (left + right) / 2 - 1.875 * FLUORITE_ANG
    quality = measure(_with_oxide(numbers, positions + np.array([middle, 0, 0]), spec))
    assert quality.hf_order > 0.6
    assert quality.hf_o_coordination > 6.5
    assert any("crystallised" in problem for problem in quality.problems())


def test_order_of_a_crystal_and_of_a_gas():
    numbers, positions = _fluorite((4, 4, 4))
    hafnium, cell = positions[numbers == HF], np.eye(3) * 4 * FLUORITE_ANG
    whole = (-100.0, 100.0)
    assert order_correlation(hafnium, cell, whole) == pytest.approx(1)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = order_correlation(hafnium @ rotation.T, cell @ rotation.T, whole)
    assert turned == pytest.approx(1)
    gas = np.random.default_rng(2).random((1000, 3)) * 30
    # Random directions: neighbours share only their own bond, one of about ten.
    assert order_correlation(gas, np.eye(3) * 30, whole) < 0.25
    assert order_correlation(hafnium[:1], cell * 3, whole) == 0


def test_faces_alone_are_no_order():
    """A slab cut from a gas: half neighbourhoods are mirrored, so its faces add nothing."""
    rng = np.random.default_rng(3)
    gas = rng.random((4000, 3)) * [12, 60, 60]
    cell = np.diag([80.0, 60, 60])
    slab = order_correlation(gas, cell, (0.0, 12.0))
    naive = order_correlation(gas, cell, (-100.0, 100.0))
    bulk = order_correlation(rng.random((4000, 3)) * 35, np.eye(3) * 35, (-100.0, 100.0))
    assert abs(slab - bulk) < 0.1
    assert naive > slab


def test_uniform_gas_has_g_of_one():
    """Normalisation to a slab: no excess and no deficit at any distance."""
    spec = toy_spec(cross_section_ang=25.44, oxide_units=900)
    stack = metal_stack(spec)
    left, right = stack.oxide_ang[0] + 1.06, stack.oxide_ang[1] - 0.98
    rng = np.random.default_rng(4)
    n_ions = 3 * spec.n_oxide_units
    positions = left + rng.random((n_ions, 3)) * [right - left, 0, 0]
    positions[:, 1:] = rng.random((n_ions, 2)) * spec.side_ang
    numbers = np.where(np.arange(n_ions) % 3 == 0, HF, O)
    quality = measure(_with_oxide(numbers, positions, spec))
    far = np.array(quality.rdf.r_ang) > 3
    for pair, g in quality.rdf.g.items():
        assert np.array(g)[far].mean() == pytest.approx(1, abs=0.03), pair
    assert quality.oxide_density_g_cm3 == pytest.approx(9.67, rel=1e-3)
    assert quality.core_density_g_cm3 == pytest.approx(9.67, rel=0.05)
    problems = quality.problems()
    assert any("shortest Hf-O distance" in problem for problem in problems)
    assert any("oxygens without a cation" in problem for problem in problems)


def test_numbers_of_a_device_with_vacancies():
    device = toy_device()
    is_ghost = np.zeros(device.n_sites, bool)
    is_ghost[np.flatnonzero((device.region == Region.OXIDE) & (device.numbers == O))[::8]] = True
    pristine, vacated = measure(device), measure(replace(device, is_ghost=is_ghost))
    assert vacated.n_vacancies == 6
    assert vacated.composition == {"N": 128, "O": 42, "O*": 6, "Ti": 128 + 24, "Hf": 24}
    assert vacated.regions["left-contact"] == vacated.regions["right-contact"] == 96
    # The frame is judged with every site in place; the occupied mean is smaller.
    assert vacated.hf_o_coordination == pristine.hf_o_coordination
    assert vacated.hf_o_coordination_occupied < pristine.hf_o_coordination_occupied
    assert sum(pristine.hf_o_coordination_counts.values()) == 24
    ions = device.region == Region.OXIDE
    mass_g = ions.sum() / 3 * HFO2_MASS_U * 1.66053907
    volume = 8.48**2 * pristine.oxide_thickness_ang
    assert pristine.oxide_density_g_cm3 == pytest.approx(mass_g / volume)


def test_shortest_distances_by_brute_force():
    device = toy_device()
    sides = np.diag(device.cell)
    delta = device.positions[:, None] - device.positions[None]
    distance = np.linalg.norm(delta - sides * np.round(delta / sides), axis=-1)
    np.fill_diagonal(distance, np.inf)
    for name, (a, b) in {"Hf-O": (HF, O), "O-O": (O, O), "N-Ti": (7, 22)}.items():
        pair = np.ix_(device.numbers == a, device.numbers == b)
        assert measure(device).shortest_ang[name] == pytest.approx(distance[pair].min())


def test_a_structure_without_oxide_is_refused():
    stack = metal_stack(toy_spec())
    metal = Structure.create(
        stack.numbers, stack.positions, np.diag(stack.cell_ang), region=stack.region
    )
    with pytest.raises(VcmbenchError, match="no Hf in the oxide"):
        measure(metal)
