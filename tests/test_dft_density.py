"""Density matrices: they hold the electrons and the energy of the bands they come from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import bisect
from threadpoolctl import threadpool_limits

from vcmbench.dft.density import density_matrix, electrons, vacated
from vcmbench.errors import VcmbenchError
from vcmbench.units import BOLTZMANN_EV_PER_K

MESH = (6, 4, 4)
ELECTRONS = 68
TEMPERATURE_K = 1000.0


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Threads only get in each other's way in matrices of 56 orbitals."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def lead(demo):
    return demo.lead("lead-tin")


@pytest.fixture(scope="module")
def density(lead):
    return density_matrix(
        lead.hamiltonian,
        lead.overlap,
        n_electrons=ELECTRONS,
        kpoint_mesh=MESH,
        temperature_k=TEMPERATURE_K,
    )


def full_mesh(mesh):
    """Every point of a Monkhorst–Pack mesh: no symmetry used."""
    axes = [[(2 * i - n - 1) / (2 * n) for i in range(1, n + 1)] for n in mesh]
    return list(itertools.product(*axes))


def traced(density, operator) -> float:
    """Σ_R tr P(R) M(R)ᵀ over both directions of every pair."""
    pattern = density.pattern
    weight = np.repeat(pattern.weight, np.diff(pattern.offset))
    return float(weight @ (density.values * operator.align(pattern).values))


@pytest.fixture(scope="module")
def levels(lead):
    """(n_k, n_orbitals) levels of the full mesh; −k has those of k, so half of it is solved."""
    points = [k for k in full_mesh(MESH) if k[0] > 0]
    return np.array(
        [
            scipy.linalg.eigh(
                lead.hamiltonian.to_csr(k).toarray(),
                lead.overlap.to_csr(k).toarray(),
                eigvals_only=True,
            )
            for k in points
        ]
    )


def fermi(energies, mu, temperature_k=TEMPERATURE_K):
    return 2 / (np.exp((energies - mu) / (BOLTZMANN_EV_PER_K * temperature_k)) + 1)


def test_density_counts_the_electrons(lead, density):
    assert abs(traced(density, lead.overlap) - ELECTRONS) < 1e-9


def test_density_holds_the_energy_of_the_bands(lead, density, levels):
    def excess(mu):
        return fermi(levels, mu).sum(axis=1).mean() - ELECTRONS

    with np.errstate(over="ignore"):
        mu = bisect(excess, -5, 5, xtol=1e-12)
        expected = (fermi(levels, mu) * levels).sum(axis=1).mean()
    # The run's own Fermi level, as the import found it, but for what fixed-point rounding moves.
    assert abs(mu) < 1e-3
    assert traced(density, lead.hamiltonian) == pytest.approx(expected, abs=1e-8)


def dense_image(directed, shift):
    """(n_orbitals, n_orbitals) blocks of one image."""
    blocks = (directed.pattern.shift == shift).all(axis=1)
    one = directed.select(blocks)
    dense = np.zeros((one.pattern.n_orbitals,) * 2)
    dense[one.entry_orbitals()] = one.values
    return dense


def test_filled_bands_are_idempotent(lead):
    """P S P = 2 P at a k-point with a gap, put together from two images of a mesh of this one."""
    k = np.array([0, 0, 0.25])
    h, s = (m.to_csr(k).toarray() for m in (lead.hamiltonian, lead.overlap))
    gaps = np.diff(scipy.linalg.eigh(h, s, eigvals_only=True))
    n_filled = 20 + int(gaps[19:45].argmax())
    assert gaps[n_filled - 1] > 0.1
    density = density_matrix(
        lead.hamiltonian,
        lead.overlap,
        n_electrons=2 * n_filled,
        kpoint_mesh=(1, 1, 2),
        temperature_k=1.0,
    )
    # P(R) = Re P(k) exp(−2πi k·R): the real part at R = 0, the imaginary one at R = z.
    directed = density.directed()
    p = dense_image(directed, (0, 0, 0)) + 1j * dense_image(directed, (0, 0, 1))
    np.testing.assert_allclose(p, p.conj().T, atol=1e-10)
    np.testing.assert_allclose(p @ s @ p, 2 * p, atol=1e-9)
    assert np.trace(p @ s).real == pytest.approx(2 * n_filled, abs=1e-9)


def test_gauge_does_not_matter(lead):
    here, shifted = (
        density_matrix(
            lead.hamiltonian + mu * lead.overlap,
            lead.overlap,
            n_electrons=ELECTRONS,
            kpoint_mesh=(2, 1, 2),
            temperature_k=TEMPERATURE_K,
        )
        for mu in (0.0, 7.3)
    )
    np.testing.assert_allclose(shifted.values, here.values, atol=1e-9)


def test_progress_is_told_of_every_point(lead):
    told = []
    density_matrix(
        lead.hamiltonian,
        lead.overlap,
        n_electrons=ELECTRONS,
        kpoint_mesh=(1, 1, 2),
        temperature_k=TEMPERATURE_K,
        progress=lambda *step: told.append(step),
    )
    assert told == [(0, 1), (1, 1)]


def test_more_electrons_than_the_basis_holds(lead):
    with pytest.raises(VcmbenchError, match="found 113 electrons, expected at most 112"):
        density_matrix(
            lead.hamiltonian,
            lead.overlap,
            n_electrons=113,
            kpoint_mesh=(1, 1, 1),
            temperature_k=TEMPERATURE_K,
        )


# Electrons that leave


def test_exactly_the_electrons_of_the_sites_leave(lead, density):
    overlap = lead.overlap
    before = electrons(density, overlap)
    assert before == pytest.approx(ELECTRONS, abs=1e-6)
    after = vacated(density, overlap, np.array([1, 2]), 3)
    assert before - electrons(after, overlap) == pytest.approx(6, abs=1e-9)


def test_they_leave_the_site_and_its_bonds_alone(lead, density):
    site = 1
    after = vacated(density, lead.overlap, np.array([site]), 3)
    pattern = density.pattern
    touched = pattern.entry_mask((pattern.pair == site).any(axis=1))
    np.testing.assert_array_equal(after.values[~touched], density.values[~touched])
    onsite = pattern.entry_mask(pattern.is_onsite & (pattern.pair[:, 0] == site))
    ratio = after.values[onsite] / density.values[onsite]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
    bonds = pattern.entry_mask((pattern.pair == site).sum(axis=1) == 1)
    np.testing.assert_allclose(
        after.values[bonds], np.sqrt(ratio[0]) * density.values[bonds], rtol=1e-12
    )


def test_more_electrons_than_a_site_has_cannot_leave(lead, density):
    with pytest.raises(VcmbenchError, match=r"site 1: found .* expected at least the 30"):
        vacated(density, lead.overlap, np.array([1]), 30)
