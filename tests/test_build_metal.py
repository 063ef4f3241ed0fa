"""Electrodes: ideal contacts, exact translations, the seam through x = L, the Ti registry."""

import itertools

import numpy as np
import pytest
from build_toys import toy_device, toy_spec

from vcmbench.build.metal import TI, N, displaced, metal_stack, tin_cell
from vcmbench.build.neighbours import neighbours
from vcmbench.build.spec import DeviceSpec
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Region

SPECS = [
    toy_spec(cross_section_ang=side, ti_layers=layers, buffer_cells=buffers, oxide_units=units)
    for (side, units), layers, buffers in itertools.product(
        [(8.48, 26), (12.72, 50)], [1, 2, 5], [1, 3]
    )
]


@pytest.mark.parametrize("spec", SPECS)
def test_contacts_are_ideal_and_exact_translations(spec):
    device = toy_device(spec)
    left = device.positions[device.region == Region.LEFT_CONTACT]
    right = device.positions[device.region == Region.RIGHT_CONTACT]
    length = device.cell[0, 0]
    # Written with eight decimals, the translation is exact to the last digit.
    translation = (right - left).round(8)
    assert (translation == np.array([round(length - 12.72, 8), 0, 0])).all()
    assert (
        device.numbers[device.region == Region.LEFT_CONTACT]
        == device.numbers[device.region == Region.RIGHT_CONTACT]
    ).all()
    assert (left == (1.06 + 2.12 * np.round((left - 1.06) / 2.12)).round(8)).all()
    assert len(left) == 24 * spec.n_cells**2


@pytest.mark.parametrize("spec", SPECS)
def test_contacts_are_the_lead_cell_repeated(spec):
    """Site by site: the 8-atom cell of the lead run continues into both contacts."""
    device, cell = toy_device(spec), tin_cell()
    grid = itertools.product(range(3), range(spec.n_cells), range(spec.n_cells))
    repeats = np.concatenate([cell.positions + 4.24 * np.array(shift) for shift in grid])
    numbers = np.tile(cell.numbers, 3 * spec.n_cells**2)
    contact = device.region == Region.LEFT_CONTACT
    ideal = {(n, *p) for n, p in zip(numbers, map(tuple, repeats.round(6)), strict=True)}
    found = {
        (n, *p)
        for n, p in zip(
            device.numbers[contact], map(tuple, device.positions[contact].round(6)), strict=True
        )
    }
    assert found == ideal


def test_tin_continues_through_the_boundary():
    """Across x = L every contact atom keeps six neighbours of the other kind at 2.12 Å."""
    device = toy_device()
    pairs = neighbours(device.positions, device.cell, 2.13)
    inner = device.positions[:, 0]
    at_seam = (inner < 8) | (inner > device.cell[0, 0] - 8)
    counts = np.bincount(pairs.first, minlength=device.n_sites)
    assert (counts[at_seam] == 6).all()
    seam_pairs = at_seam[pairs.first]
    assert (device.numbers[pairs.first] != device.numbers[pairs.second])[seam_pairs].all()
    np.testing.assert_allclose(pairs.distance_ang[seam_pairs], 2.12, rtol=1e-9)


@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_last_ti_layer_lies_over_nitrogen(layers):
    stack = metal_stack(toy_spec(ti_layers=layers))
    ti = stack.positions[stack.region == Region.EXCHANGE_LAYER]
    last = ti[ti[:, 0] > ti[:, 0].max() - 1e-6]
    buffer = stack.region == Region.RIGHT_BUFFER
    first_plane = buffer & (stack.positions[:, 0] < stack.positions[buffer, 0].min() + 1e-6)
    for site in last:
        over = np.flatnonzero(
            first_plane & (np.abs(stack.positions[:, 1:] - site[1:]).max(axis=1) < 1e-6)
        )
        assert stack.numbers[over].tolist() == [N]
        assert stack.positions[over[0], 0] - site[0] == pytest.approx(2.12)


def test_ti_layers_are_close_packed_like_a_metal():
    stack = metal_stack(toy_spec(ti_layers=4))
    ti = stack.region == Region.EXCHANGE_LAYER
    pairs = neighbours(stack.positions[ti], np.diag(stack.cell_ang), 3.2)
    # α-Ti has its twelve neighbours at 2.90 and 2.95 Å.
    assert pairs.distance_ang.min() == pytest.approx(2.89, abs=0.02)
    inner = np.isin(stack.positions[ti][:, 0], np.unique(stack.positions[ti][:, 0])[1:-1])
    assert (np.bincount(pairs.first)[inner] == 12).all()


def test_no_ideal_site_lies_where_images_are_ambiguous():
    """Faces and middles of y and z: there, codes wrap one way or the other."""
    for spec in SPECS:
        stack = metal_stack(spec)
        fraction = stack.positions[:, 1:] / spec.side_ang
        assert np.abs(2 * fraction - np.round(2 * fraction)).min() > 0.05
        assert stack.positions[:, 0].min() == pytest.approx(1.06)
        assert stack.positions[:, 0].max() == pytest.approx(stack.cell_ang[0] - 1.06)


def test_only_buffers_and_ti_move():
    stack = metal_stack(toy_spec(cross_section_ang=16.96, oxide_units=100))
    moved = displaced(stack, 0.05, np.random.default_rng(0)) - stack.positions
    contact = np.isin(stack.region, [Region.LEFT_CONTACT, Region.RIGHT_CONTACT])
    assert (moved[contact] == 0).all()
    assert (moved[~contact] != 0).mean() > 0.99
    assert moved[~contact].std() == pytest.approx(0.05, rel=0.05)
    assert np.abs(moved).max() <= 0.15 + 1e-8


def test_regions_stand_in_order_along_x():
    device = toy_device()
    middles = [device.positions[device.region == region, 0].mean() for region in range(6)]
    assert middles == sorted(middles)
    assert (np.diff(device.region) >= 0).all()
    assert (device.numbers[device.region == Region.EXCHANGE_LAYER] == TI).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_section_ang": 9.0}, "multiple of 4.24"),
        ({"cross_section_ang": 4.24}, "multiple of 4.24"),
        ({"oxide_thickness_ang": 13.0}, "either oxide_units or oxide_thickness_ang"),
        ({"oxide_units": 3}, "thickness of at least"),
        ({"ti_layers": 0}, "ti_layers"),
        ({"buffer_cells": 0}, "buffer_cells"),
        ({"colour": "red"}, "colour"),
        ({"vacancies": {"kind": "randomly", "count": 1}}, "vacancies"),
        ({"vacancies": {"kind": "random", "count": 0}}, "count"),
    ],
)
def test_bad_specs_name_the_field(changes, message):
    with pytest.raises(VcmbenchError, match=message):
        toy_spec(**changes)


def test_thickness_and_units_agree():
    by_units = toy_spec(oxide_units=26)
    by_thickness = toy_spec(oxide_units=None, oxide_thickness_ang=by_units.nominal_thickness_ang)
    assert by_thickness.n_oxide_units == 26
    # 9.67 g/cm³ is 0.083 atoms/Å³.
    assert 78 / (8.48**2 * by_units.nominal_thickness_ang) == pytest.approx(0.083, rel=1e-3)
    assert isinstance(by_units, DeviceSpec)
