"""The transmission of a whole device: unfolded leads, order of sites, resuming, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from transport_toys import dense_transmission, make_lead, tiled

from vcmbench.blocks import BlockMatrix
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Region
from vcmbench.transport import Lead, TransmissionSolver, transmission
from vcmbench.transport.bloch import upper_triangle
from vcmbench.transport.lead import PrincipalLayer, surfaces
from vcmbench.transport.sweep import POINT
from vcmbench.workers import local_cluster

ENERGIES = np.array([-1.0, 0.2, 0.5])
KPOINTS = np.array([[0, 0.1, 0.3], [0, -0.4, 0.25]])
WEIGHTS = np.array([0.25, 0.75])


@pytest.fixture(scope="module")
def lead() -> Lead:
    return make_lead()


def with_barrier(matrices: tuple[BlockMatrix, BlockMatrix], height_ev: float) -> BlockMatrix:
    """Shift the sites of the third and fourth cell, the upper ones more."""
    h, s = matrices
    pattern = h.pattern
    positions = pattern.structure.positions
    x = np.sort(positions[pattern.structure.region == Region.OXIDE, 0])
    site_shift = np.where(pattern.structure.region == Region.OXIDE, height_ev, 0.0)
    site_shift *= 1 + 0.3 * (positions[:, 0] > np.median(x))
    mean = 0.5 * site_shift[pattern.pair].sum(axis=1)
    return h.with_values(h.values + s.values * np.repeat(mean, np.diff(pattern.offset)))


def test_device_cut_from_the_lead_transmits_every_open_channel(lead):
    result = transmission(*tiled(lead, (7, 2, 2), shuffle=1), lead, ENERGIES, KPOINTS, WEIGHTS)
    assert result.by_k == pytest.approx(np.round(result.by_k), abs=1e-6)
    assert result.by_k == pytest.approx(result.points["channels"], abs=1e-6)
    assert result.by_k.max() >= 3
    assert result.gates.passed
    assert result.mean == pytest.approx(0.25 * result.by_k[0] + 0.75 * result.by_k[1])


def explicit_layer(lead: Lead, repeats: tuple[int, int], k: np.ndarray) -> PrincipalLayer:
    """Two cells over the whole cross-section, without Bloch's theorem along y and z."""
    matrices = tiled(lead, (4, *repeats))
    h, s = (m.select(m.pattern.shift[:, 0] == 0).to_csr(k).toarray() for m in matrices)
    n = len(h) // 2
    return PrincipalLayer(h[:n, :n], h[:n, n:], s[:n, :n], s[:n, n:])


@pytest.mark.parametrize("height", [0.0, 5.0, 20.0])
def test_agrees_with_the_dense_inverse_of_the_whole_supercell(lead, height):
    matrices = tiled(lead, (7, 2, 1))
    h, s = with_barrier(matrices, height), matrices[1]
    result = transmission(h, s, lead, ENERGIES, KPOINTS, WEIGHTS)
    compared = []
    for k, row in zip(KPOINTS, result.by_k, strict=True):
        layer = explicit_layer(lead, (2, 1), k)
        h_k, s_k = (m.select(m.pattern.shift[:, 0] == 0).to_csr(k).toarray() for m in (h, s))
        for energy, found in zip(ENERGIES, row, strict=True):
            ends = surfaces(layer, energy)
            if ends.channels < 0.5:
                assert found < 1e-12
                continue
            expected = dense_transmission(h_k, s_k, energy, ends.left, ends.right)
            compared.append(expected)
            assert found == pytest.approx(expected, rel=1e-9, abs=0)
    assert len(compared) >= 4
    assert (max(compared) > 0.5) == (height == 0.0)
    assert result.gates.passed


def test_order_of_sites_and_choice_of_images_do_not_matter(lead):
    """A device of which the contacts are shuffled and wrapped, and the barrier asymmetric."""
    found = []
    for shuffle in (None, 2, 3):
        h, s = tiled(lead, (7, 2, 2), shuffle=shuffle)
        found.append(transmission(with_barrier((h, s), 6.0), s, lead, ENERGIES, KPOINTS, WEIGHTS))
    assert found[0].mean.min() > 0
    for other in found[1:]:
        assert other.by_k == pytest.approx(found[0].by_k, rel=1e-9, abs=0)


def test_coupling_through_the_periodic_boundary_is_removed(lead):
    h, s = tiled(lead, (7, 1, 1))
    expected = transmission(h, s, lead, ENERGIES, KPOINTS, WEIGHTS).by_k
    through = np.repeat(h.pattern.shift[:, 0] != 0, np.diff(h.pattern.offset))
    assert abs(h.values[through]).max() > 1e-3
    other = h.with_values(np.where(through, 99.0, h.values))
    assert np.array_equal(transmission(other, s, lead, ENERGIES, KPOINTS, WEIGHTS).by_k, expected)


def test_blocks_that_a_model_omits_count_as_zero(lead):
    h, s = tiled(lead, (7, 1, 1))
    short = h.truncate(5.0)
    zeroed = short.align(h.pattern)
    found = transmission(short, s, lead, ENERGIES, KPOINTS, WEIGHTS)
    assert found.by_k == pytest.approx(
        transmission(zeroed, s, lead, ENERGIES, KPOINTS, WEIGHTS).by_k, rel=1e-9
    )


def test_a_hamiltonian_of_zeros_still_has_a_transmission(lead):
    h, s = tiled(lead, (7, 1, 1))
    point = TransmissionSolver(h * 0.0, s, lead).point(KPOINTS[0], 0.0)
    assert np.isfinite(point["transmission"])


def test_resumes_from_known_points(lead):
    matrices = tiled(lead, (7, 1, 1))
    seen = []
    full = transmission(
        *matrices, lead, ENERGIES, KPOINTS, WEIGHTS, progress=lambda n, points: seen.append(n)
    )
    assert seen == [1, 2, 3, 4, 5, 6]
    known = np.full((2, 3), np.nan, dtype=POINT)
    known[0] = full.points[0]
    known[0, 1]["transmission"] = 77.0
    seen.clear()
    resumed = transmission(
        *matrices,
        lead,
        ENERGIES,
        KPOINTS,
        WEIGHTS,
        known=known,
        progress=lambda n, points: seen.append(n),
    )
    assert seen == [4, 5, 6]
    assert resumed.by_k[0, 1] == 77.0
    assert np.array_equal(resumed.points[1], full.points[1])
    assert not resumed.gates.passed


def test_cached_leads_change_nothing(lead, tmp_path):
    matrices = tiled(lead, (7, 2, 1))
    first, second = (
        transmission(*matrices, lead, ENERGIES, KPOINTS, WEIGHTS, cache=tmp_path).by_k
        for _ in range(2)
    )
    assert second == pytest.approx(first, rel=1e-12, abs=0)
    solver = TransmissionSolver(*matrices, lead, tmp_path)
    solver.point(KPOINTS[0], ENERGIES[0])
    assert solver.cache.n_computed == 0


def test_device_too_short_for_its_contacts(lead):
    with pytest.raises(VcmbenchError, match="couplings between the left and the right contact"):
        transmission(*tiled(lead, (5, 1, 1)), lead, ENERGIES, KPOINTS, WEIGHTS)


def test_device_without_contacts(lead):
    with pytest.raises(VcmbenchError, match="no left-contact sites"):
        TransmissionSolver(lead.hamiltonian, lead.overlap, lead)


def test_workers_of_a_cluster_solve_the_same(lead, tmp_path):
    """Processes of their own: the solver travels, without the device that it has assembled."""
    pytest.importorskip("distributed")
    h, s = tiled(lead, (7, 2, 1))
    matrices = with_barrier((h, s), 5.0), s
    expected = transmission(*matrices, lead, ENERGIES, KPOINTS, WEIGHTS)
    told = []
    with local_cluster(2) as client:
        found = transmission(
            *matrices,
            lead,
            ENERGIES,
            KPOINTS,
            WEIGHTS,
            cache=tmp_path,
            progress=lambda done, _points: told.append(done),
            client=client,
        )
        np.testing.assert_allclose(found.by_k, expected.by_k, rtol=1e-9)
        assert told == list(range(1, ENERGIES.size * len(KPOINTS) + 1))
        # What is known is not computed again.
        known = found.points.copy()
        known["transmission"][0, 1] = np.nan
        again = transmission(
            *matrices, lead, ENERGIES, KPOINTS, WEIGHTS, known=known, client=client
        )
        np.testing.assert_allclose(again.by_k, expected.by_k, rtol=1e-9)
    assert len(list(tmp_path.rglob("*.npz"))) == ENERGIES.size * len(KPOINTS) * 2


def test_failing_point_ends_the_sweep(lead, monkeypatch):
    matrices = tiled(lead, (7, 1, 1))
    solve, solved = TransmissionSolver.point, []

    def fails(self, k, energy_ev):
        solved.append(energy_ev)
        if energy_ev == ENERGIES[0]:
            raise ZeroDivisionError
        return solve(self, k, energy_ev)

    monkeypatch.setattr(TransmissionSolver, "point", fails)
    with pytest.raises(ZeroDivisionError):
        transmission(*matrices, lead, ENERGIES, KPOINTS, WEIGHTS, threads=1)
    # Points that wait are not begun, but for the one that a thread may just have taken.
    assert len(solved) <= 2


@pytest.mark.parametrize("directed", [False, True])
def test_upper_triangle_is_that_of_the_bloch_sum(lead, directed):
    """Of a cell with couplings to its own images, in another order and gauge."""
    h = tiled(lead, (3, 1, 1), shuffle=4)[0]
    assert ((h.pattern.pair[:, 0] == h.pattern.pair[:, 1]) & ~h.pattern.is_onsite).any()
    rng = np.random.default_rng(3)
    order = rng.permutation(h.pattern.n_orbitals)
    gauge = np.exp(2j * np.pi * rng.random(len(order)))
    k = np.array([0.1, 0.2, -0.3])
    whole = h.to_csr(k).toarray()[np.ix_(order, order)]
    expected = np.triu(gauge.conj()[:, None] * whole * gauge)
    found = upper_triangle(h.directed() if directed else h, k, order, gauge).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-14)
