"""Transmission metrics of curves whose errors are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from vcmbench.errors import VcmbenchError
from vcmbench.scores.result import DeviceTransmission, Floor, TransmissionErrors, Unavailable
from vcmbench.scores.transmission import (
    Curve,
    best_shift,
    compare,
    energy_grid_floor,
    gates,
    noise_floor,
    score_devices,
    solver_floor,
    wasserstein_ev,
)
from vcmbench.transport import Gates

ENERGIES = np.round(np.arange(-100, 101) * 0.01, 2)
GATES = Gates(1e-12, -0.5, 1e-13, 1e-14)


def curve(values) -> Curve:
    return Curve(ENERGIES, np.broadcast_to(np.asarray(values, float), ENERGIES.shape).copy())


def barrier() -> Curve:
    """Tunnelling gap with a resonance."""
    return curve(10.0 ** (-6 + 4 * ENERGIES**2) + 0.3 * np.exp(-((ENERGIES - 0.4) ** 2) / 2e-4))


def test_reference_against_itself_is_exactly_zero():
    errors = compare(barrier(), barrier())
    assert set(errors.model_dump().values()) == {0.0}


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_constant_factor_is_its_logarithm_everywhere(factor):
    reference = barrier()
    errors = compare(reference, curve(factor * reference.transmission))
    assert errors.log10_mae == pytest.approx(2, rel=1e-3)
    assert errors.log10_signed_mean == pytest.approx(np.log10(factor), rel=1e-3)
    assert errors.log10_p95 == pytest.approx(2, rel=1e-4)
    assert errors.integrated_difference == pytest.approx(abs(factor - 1), rel=1e-12)
    # The smallest conductance, 1e-8, is not far above ε.
    assert errors.conductance_log10_error == pytest.approx(2, rel=5e-3)
    assert errors.current_log10_error == pytest.approx(2, rel=1e-3)
    assert errors.wasserstein_ev == pytest.approx(0, abs=1e-15)


def test_constant_transmission_is_its_own_conductance():
    ours, theirs = curve(1e-3), curve(2e-3)
    errors = compare(ours, theirs)
    assert errors.conductance_log10_error == pytest.approx(np.log10(2), rel=1e-6)
    assert errors.current_log10_error == pytest.approx(np.log10(2), rel=1e-6)


def test_signed_mean_and_percentile_follow_the_definition():
    reference = curve(1e-4)
    decades = np.linspace(-1, 3, ENERGIES.size)
    errors = compare(reference, curve(1e-4 * 10.0**decades))
    assert errors.log10_mae == pytest.approx(np.abs(decades).mean(), rel=1e-4)
    assert errors.log10_signed_mean == pytest.approx(1, rel=1e-4)
    assert errors.log10_p95 == pytest.approx(np.percentile(np.abs(decades), 95), rel=1e-4)


def test_epsilon_hides_what_is_below_it():
    assert compare(curve(1e-14), curve(1e-16)).log10_mae < 1e-3
    assert compare(curve(1e-10), curve(0.0)).log10_mae == pytest.approx(np.log10(2))


def test_k_average_comes_before_the_logarithm():
    by_k = np.stack([np.full(ENERGIES.size, 1e-2), np.full(ENERGIES.size, 1e-6)])
    mean = Curve.averaged(ENERGIES, [0.5, 0.5], by_k)
    np.testing.assert_allclose(mean.transmission, 0.5 * (1e-2 + 1e-6))
    swapped = Curve.averaged(ENERGIES, [0.5, 0.5], by_k[::-1])
    assert compare(mean, swapped).log10_mae == 0
    weighted = Curve.averaged(ENERGIES, [0.25, 0.75], by_k)
    assert compare(mean, weighted).log10_signed_mean == pytest.approx(np.log10(0.5), rel=1e-3)


def test_distance_of_a_shifted_peak_is_its_shift():
    peak = [np.exp(-((ENERGIES - x) ** 2) / 2 / 0.05**2) for x in (-0.3, 0.2)]
    assert wasserstein_ev(curve(peak[0]), curve(peak[1])) == pytest.approx(0.5, rel=1e-6)
    assert wasserstein_ev(curve(peak[0]), curve(1e-9 * peak[0])) == pytest.approx(0, abs=1e-12)
    assert wasserstein_ev(curve(0.0), curve(peak[0])) is None


@pytest.mark.parametrize("steps", [-21, -1, 0, 3, 30])
def test_shifted_curve_is_shifted_back(steps):
    """A uniformly shifted level costs a shift, and nothing after it."""
    wide = np.round(np.arange(-140, 141) * 0.01, 2)
    values = 10.0 ** (-6 + 4 * wide**2) + 0.3 * np.exp(-((wide - 0.4) ** 2) / 2e-4)
    shift_ev, rest = best_shift(curve(values[40:241]), curve(values[40 + steps : 241 + steps]))
    assert shift_ev == pytest.approx(0.01 * steps, abs=1e-12)
    assert rest == pytest.approx(0, abs=1e-12)


def test_shift_stays_in_its_range_and_on_its_grid():
    far = curve(np.roll(barrier().transmission, 60))
    assert abs(best_shift(barrier(), far)[0]) <= 0.3 + 1e-12
    # Nothing to gain: the smallest shift counts.
    assert best_shift(curve(1e-3), curve(1e-2)) == (0.0, pytest.approx(1, rel=1e-6))
    coarse = Curve(np.array([-0.5, 0.0, 0.5]), np.array([1e-3, 1e-2, 1e-1]))
    assert best_shift(coarse, coarse) == (0.0, 0.0)


def test_a_dead_prediction_still_scores():
    errors = compare(barrier(), curve(0.0))
    assert errors.log10_mae > 4
    assert errors.integrated_difference == pytest.approx(1)
    assert errors.wasserstein_ev is None
    assert compare(curve(0.0), curve(1e-12)).integrated_difference == pytest.approx(0.01)


def test_energy_grid_floor_is_zero_for_what_interpolation_gets_right():
    straight = curve(10.0 ** (-3 + 2 * ENERGIES))
    assert energy_grid_floor(straight).max < 1e-6
    zigzag = curve(np.where(np.arange(ENERGIES.size) % 2, 1e-2, 1e-4))
    found = energy_grid_floor(zigzag)
    assert found.mean == pytest.approx(2, rel=1e-4)
    assert found.energies == 100
    assert energy_grid_floor(Curve(ENERGIES[::4], barrier().transmission[::4])).mean > (
        energy_grid_floor(barrier()).mean
    )


def test_solver_floor_turns_relative_differences_into_decades():
    by_k = np.stack([barrier().transmission, np.zeros(ENERGIES.size)])
    found = solver_floor(np.array([0.5, 0.5]), by_k, np.full(by_k.shape, 0.1))
    assert found.max == pytest.approx(np.log10(1.1), rel=1e-3)
    assert solver_floor(np.array([0.5, 0.5]), by_k, np.zeros(by_k.shape)).max == 0


def test_floors_are_collected_and_unknown_ones_are_null():
    stored = {
        "cutoff_8A": {"mean": 0.1, "p95": 0.2, "max": 0.3, "energies": 51.0},
        "something_else": {"mean": 0.0, "p95": 0.0, "max": 0.0, "energies": 51},
    }
    found = noise_floor(barrier(), stored)
    assert found.cutoff_8A == Floor(mean=0.1, p95=0.2, max=0.3, energies=51)
    assert found.energy_grid == energy_grid_floor(barrier())
    assert found.solver is found.label_noise is found.rounding is None


def device(factor: float, checks: Gates = GATES, all_predicted=None) -> DeviceTransmission:
    reference = barrier()
    errors = compare(reference, curve(factor * reference.transmission))
    return DeviceTransmission(
        **errors.model_dump(),
        all_predicted=all_predicted or errors,
        noise_floor=noise_floor(reference, {}),
        gates=gates(checks),
        conductance_g0=1e-3,
        predicted_conductance_g0=factor * 1e-3,
        n_energies=ENERGIES.size,
        n_kpoints=2,
    )


def test_devices_are_averaged():
    bad = Gates(-1e-3, 0.1, 1e-5, 0.0)
    section = score_devices(
        {"a": device(10), "b": device(1000, bad), "c": Unavailable(reason="bulk")}
    )
    assert section.log10_mae == pytest.approx(2, rel=1e-3)
    assert section.all_predicted.log10_mae == section.log10_mae
    assert section.log10_mae_bounds.low == pytest.approx(1, rel=1e-3)
    assert not section.gates.passed
    assert section.devices["a"].gates.passed
    assert section.gates.lowest_transmission == -1e-3
    assert section.gates.meeting_error == 1e-5
    assert section.noise_floor.energy_grid.mean == pytest.approx(
        section.devices["a"].noise_floor.energy_grid.mean
    )
    assert section.energy_stride == 1
    assert isinstance(section.all_predicted, TransmissionErrors)


def test_without_devices_the_reason_is_kept():
    assert score_devices({"x": Unavailable(reason="bulk has no contacts")}) == Unavailable(
        reason="bulk has no contacts"
    )
    missing = Unavailable(reason="left out by --quick")
    assert score_devices({"a": device(10, all_predicted=missing)}).all_predicted == missing


def test_wrong_curves_are_refused():
    with pytest.raises(VcmbenchError, match="found 51 predicted and 201 reference"):
        compare(barrier(), Curve(ENERGIES[::4], barrier().transmission[::4]))
    with pytest.raises(VcmbenchError, match="shape"):
        Curve.averaged(ENERGIES, [1.0], np.zeros((2, ENERGIES.size)))
    with pytest.raises(VcmbenchError, match="NaN"):
        Curve.averaged(ENERGIES, [1.0], np.full((1, ENERGIES.size), np.nan))
