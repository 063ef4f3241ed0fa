"""Lead surfaces by modes: closed forms, the decimation at a tiny broadening, levels and edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import eigvalsh
from transport_toys import make_chain, make_lead, tiled

from vcmbench.transport import Lead, transmission
from vcmbench.transport.cache import SurfaceCache
from vcmbench.transport.lead import PrincipalLayer, surfaces
from vcmbench.transport.modes import mode_surfaces

HOPPING, OVERLAP = -1.3, 0.1
CHAIN = PrincipalLayer(*(np.array([[x]], complex) for x in (0.0, HOPPING, 1.0, OVERLAP)))
EDGE = 2 * HOPPING / (1 + 2 * OVERLAP)
Q = np.array([0.05, 0.15])


@pytest.fixture(scope="module")
def lead() -> Lead:
    return make_lead()


@pytest.mark.parametrize("energy", [-2.0, EDGE + 1e-4, EDGE + 1e-8, 0.0, 0.3, 2.0])
def test_analytic_chain_within_the_band(energy):
    """E = 0 is the level of a single layer, where the doubling breaks down."""
    coupling = HOPPING - energy * OVERLAP
    k = np.arccos(energy / (2 * coupling))
    found = mode_surfaces(CHAIN, energy)
    assert found.channels == 1
    for contact in (found.left, found.right):
        assert contact.sigma[0, 0] == pytest.approx(coupling * np.exp(1j * k), rel=1e-9)
        assert contact.factor.shape == (1, 1)


@pytest.mark.parametrize("energy", [EDGE - 1e-4, EDGE - 1e-8, 4.0, 40.0])
def test_analytic_chain_outside_the_band(energy):
    coupling = HOPPING - energy * OVERLAP
    half = energy / (2 * coupling)
    found = mode_surfaces(CHAIN, energy)
    assert found.channels == 0
    for contact in (found.left, found.right):
        decay = half - np.copysign(np.sqrt(half**2 - 1), half)
        assert contact.sigma[0, 0] == pytest.approx(coupling * decay, rel=1e-9)
        assert contact.factor.shape == (1, 0)


def test_at_the_edge_of_a_band_the_decimation_answers():
    found, expected = mode_surfaces(CHAIN, EDGE), surfaces(CHAIN, EDGE)
    assert np.array_equal(found.left.sigma, expected.left.sigma)
    assert 0 < found.channels < 1


@pytest.mark.parametrize("energy", [-1.0, 0.2, 0.5])
def test_equals_the_decimation_with_hardly_any_broadening(lead, energy):
    layer = lead.principal_layer(Q, 2)
    found, expected = mode_surfaces(layer, energy), surfaces(layer, energy, 1e-12)
    assert found.channels == np.round(expected.channels)
    for contact, other in ((found.left, expected.left), (found.right, expected.right)):
        scale = abs(other.sigma).max()
        assert contact.sigma == pytest.approx(other.sigma, abs=1e-10 * scale)
        assert contact.factor.shape[1] == found.channels
        gamma = 1j * (contact.sigma - contact.sigma.conj().T)
        assert contact.factor @ contact.factor.conj().T == pytest.approx(gamma, abs=1e-13 * scale)


@pytest.mark.parametrize("distance_ev", [0.0, 1e-9, 1e-6, 1e-3])
def test_surfaces_solve_their_dyson_equations_near_a_level_of_a_layer(distance_ev):
    h00, h01, s00, s01 = layer = make_chain().left
    levels = eigvalsh(h00, s00)
    energy = levels[abs(levels).argmin()] + distance_ev
    found = mode_surfaces(layer, energy)
    assert found.channels >= 1
    assert found.negative_gamma < 1e-11
    to = energy * s01 - h01
    back = to.conj().T
    for sigma, outward, inward in ((found.left.sigma, to, back), (found.right.sigma, back, to)):
        green = np.linalg.solve(inward, sigma) @ np.linalg.inv(outward)
        expected = np.linalg.inv(energy * s00 - h00 - sigma)
        assert abs(green - expected).max() < 1e-9 * abs(green).max()


def test_closed_leads_let_nothing_through(lead):
    h, s = tiled(lead, (7, 1, 1))
    result = transmission(
        h, s, lead, np.array([-90.0]), np.array([[0, 0.1, 0.3]]), np.ones(1), leads="modes"
    )
    assert result.points["channels"] == 0
    assert result.by_k == 0
    assert result.gates.passed


def test_cache_keeps_both_methods_apart(lead, tmp_path):
    by_modes = SurfaceCache(lead, 2, tmp_path, "modes")
    made = by_modes.surfaces(Q, 0.2)
    other = SurfaceCache(lead, 2, tmp_path)
    assert not other.holds(Q, 0.2)
    assert other.surfaces(Q, 0.2).channels != made.channels
    again = by_modes.surfaces(Q, 0.2)
    assert by_modes.n_computed == 1
    assert again.channels == made.channels
    assert abs(again.left.sigma - made.left.sigma).max() < 1e-15 * abs(made.left.sigma).max()
    closed = by_modes.surfaces(Q, -90.0)
    assert by_modes.surfaces(Q, -90.0).right.factor.shape == closed.right.factor.shape
