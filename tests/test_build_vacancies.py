"""Vacancies: where they are put, and that a filament is one connected chain."""

import numpy as np
import pytest
from build_toys import toy_device, toy_spec
from scipy.sparse.csgraph import connected_components

from vcmbench.build.metal import O
from vcmbench.build.spec import FilamentVacancies, ScatteredVacancies
from vcmbench.build.vacancies import HOP_ANG, REACH_ANG, bridges, oxide_bounds, with_vacancies
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Region, Structure


def _joined(structure: Structure) -> bool:
    """Brute force: one component of ghosts, by minimum images, reaches both electrodes."""
    ghosts = structure.positions[structure.is_ghost]
    delta = ghosts[:, None] - ghosts[None]
    sides = np.diag(structure.cell)
    delta -= sides * np.round(delta / sides)
    near = np.linalg.norm(delta, axis=-1) < HOP_ANG
    _, component = connected_components(near)
    left, right = oxide_bounds(structure)
    touches_left = set(component[ghosts[:, 0] < left + REACH_ANG])
    touches_right = set(component[ghosts[:, 0] > right - REACH_ANG])
    return bool(touches_left & touches_right)


@pytest.mark.parametrize("radius_ang", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_filament_is_connected(radius_ang, seed):
    pristine = toy_device(toy_spec(cross_section_ang=12.72, oxide_units=60, seed=seed))
    formed = with_vacancies(pristine, FilamentVacancies(radius_ang=radius_ang, seed=seed))
    assert _joined(formed)
    assert bridges(formed)
    ghosts = formed.is_ghost
    assert (formed.numbers[ghosts] == O).all()
    assert (formed.region[ghosts] == Region.OXIDE).all()
    # Each vacancy is needed: a chain of radius 0 breaks wherever one is filled again.
    if radius_ang == 0:
        left, right = oxide_bounds(formed)
        x = formed.positions[:, 0]
        for site in np.flatnonzero(ghosts & (x > left + HOP_ANG) & (x < right - HOP_ANG)):
            healed = formed.is_ghost.copy()
            healed[site] = False
            assert not bridges(
                Structure.create(
                    formed.numbers,
                    formed.positions,
                    formed.cell,
                    is_ghost=healed,
                    region=formed.region,
                )
            )


def test_filament_takes_every_oxygen_inside_its_radius():
    pristine = toy_device(toy_spec(cross_section_ang=12.72, oxide_units=60))
    thin = with_vacancies(pristine, FilamentVacancies(radius_ang=1.0, seed=5))
    thick = with_vacancies(pristine, FilamentVacancies(radius_ang=4.0, seed=5))
    everything = with_vacancies(pristine, FilamentVacancies(radius_ang=20.0, seed=5))
    assert thin.n_ghosts < thick.n_ghosts < everything.n_ghosts
    assert everything.n_ghosts == (pristine.numbers == O).sum()
    axis = thick.positions[thick.is_ghost][:, 1:]
    sides = np.diag(pristine.cell)[1:]
    delta = axis - axis[0]
    spread = np.linalg.norm(delta - sides * np.round(delta / sides), axis=1)
    assert spread.max() < 8.0 + HOP_ANG


def test_scattered_chain_with_a_gap_does_not_bridge():
    pristine = toy_device()
    formed = with_vacancies(pristine, FilamentVacancies(radius_ang=2.0, seed=1))
    left, right = oxide_bounds(formed)
    x = formed.positions[:, 0]
    cut = formed.is_ghost & (np.abs(x - (left + right) / 2) > 2.5)
    broken = Structure.create(
        formed.numbers, formed.positions, formed.cell, is_ghost=cut, region=formed.region
    )
    assert not _joined(broken)
    assert not bridges(broken)
    assert not bridges(pristine)


def test_counts_positions_and_determinism():
    pristine = toy_device()
    vacancies = ScatteredVacancies(kind="random", count=7, seed=2)
    first, second = with_vacancies(pristine, vacancies), with_vacancies(pristine, vacancies)
    other = with_vacancies(pristine, vacancies.model_copy(update={"seed": 3}))
    assert first.n_ghosts == 7
    assert (first.is_ghost == second.is_ghost).all()
    assert (first.is_ghost != other.is_ghost).any()
    assert (first.positions == pristine.positions).all()
    assert (first.numbers == pristine.numbers).all()


def test_graded_vacancies_lean_towards_ti():
    pristine = toy_device(toy_spec(cross_section_ang=16.96, oxide_units=200))
    left, right = oxide_bounds(pristine)

    def depths(kind):
        return np.concatenate(
            [
                (device.positions[device.is_ghost, 0] - left) / (right - left)
                for seed in range(10)
                for device in [
                    with_vacancies(pristine, ScatteredVacancies(kind=kind, count=20, seed=seed))
                ]
            ]
        )

    depth = (pristine.positions[pristine.numbers == O, 0] - left) / (right - left)
    standard_error = depth.std() / np.sqrt(200)
    assert depths("random").mean() == pytest.approx(depth.mean(), abs=2.5 * standard_error)
    expected = (depth**2).sum() / depth.sum()
    assert expected > depth.mean() + 5 * standard_error
    assert depths("graded").mean() == pytest.approx(expected, abs=2.5 * standard_error)


def test_refusals():
    pristine = toy_device()
    with pytest.raises(VcmbenchError, match="at most 48 oxygens"):
        with_vacancies(pristine, ScatteredVacancies(kind="random", count=49))
    once = with_vacancies(pristine, ScatteredVacancies(kind="random", count=1))
    with pytest.raises(VcmbenchError, match="1 ghosts, expected a structure without"):
        with_vacancies(once, ScatteredVacancies(kind="random", count=1))
