"""Conductance, current and cumulated transmission against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from vcmbench.transport.observables import conductance_g0, cumulated, current_a
from vcmbench.transport.sweep import POINT, Transmission
from vcmbench.units import BOLTZMANN_EV_PER_K, CONDUCTANCE_QUANTUM_S

GRID = np.linspace(-1, 1, 201)


def test_constant_transmission():
    ones = np.ones_like(GRID)
    voltages = np.linspace(0.05, 1.0, 20)
    assert conductance_g0(GRID, 3e-7 * ones) == pytest.approx(3e-7, rel=1e-9)
    # G0 V for any temperature: the window's area is V. At 1 V, exp(-0.5 eV / kT) is 4e-9.
    assert current_a(GRID, ones, voltages) == pytest.approx(
        CONDUCTANCE_QUANTUM_S * voltages, rel=1e-7
    )


def test_current_against_quadrature():
    kt = BOLTZMANN_EV_PER_K * 300

    def transmission(energy):
        return 1e-6 * np.exp(4 * energy)

    def integrand(energy, voltage):
        fermi = [1 / (1 + np.exp((energy - mu) / kt)) for mu in (voltage / 2, -voltage / 2)]
        return transmission(energy) * (fermi[0] - fermi[1])

    for voltage in (0.05, 0.4):
        expected, _ = quad(integrand, -1, 1, args=(voltage,), points=[0, voltage / 2], limit=200)
        found = current_a(GRID, transmission(GRID), [voltage])
        assert found == pytest.approx(CONDUCTANCE_QUANTUM_S * expected, rel=1e-4)


def test_current_is_odd_and_ohmic_at_small_voltage():
    transmission = 1e-4 * (2 + np.sin(5 * GRID))
    forward, backward = current_a(GRID, transmission, [1e-4, -1e-4])
    assert forward == pytest.approx(-backward, rel=1e-12)
    ohmic = CONDUCTANCE_QUANTUM_S * conductance_g0(GRID, transmission) * 1e-4
    assert forward == pytest.approx(ohmic, rel=1e-6)


def test_cold_contacts_see_the_window_alone():
    step = np.where(GRID > 0.3, 1.0, 1e-12)
    assert current_a(GRID, step, [0.2], temperature_k=30)[0] < 1e-12
    assert current_a(GRID, step, [0.9], temperature_k=30)[0] > 1e-6


def test_cumulated():
    ramp = cumulated(GRID, np.ones_like(GRID))
    assert ramp == pytest.approx(np.linspace(0, 1, len(GRID)), abs=1e-12)
    assert (np.diff(cumulated(GRID, np.exp(-9 * GRID))) > 0).all()


@pytest.mark.parametrize(
    ("transmission", "relative_error", "passes"),
    [
        (1e-3, 9e-10, True),
        (1e-3, 2e-9, False),
        (2e-12, 2e-9, False),
        (1e-15, 2e-9, True),
        (1e-15, 2e-6, False),
        (np.nan, 0.0, False),
    ],
)
def test_meeting_windows_must_agree_down_to_a_floor_of_t(transmission, relative_error, passes):
    point = np.array([[(transmission, 1.0, relative_error, 0.0)]], dtype=POINT)
    found = Transmission(np.zeros(1), np.zeros((1, 3)), np.ones(1), point, 0.0)
    assert found.gates.passed == passes
