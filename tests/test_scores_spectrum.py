"""Eigenvalues against SciPy's dense solver, index matching and densities of states by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from score_toys import make_pattern, overlap_like, random_operator
from threadpoolctl import threadpool_limits

from vcmbench.errors import VcmbenchError
from vcmbench.scores import spectrum
from vcmbench.scores.result import SpectrumErrors, Unavailable
from vcmbench.scores.spectrum import (
    Levels,
    compare_levels,
    device_levels,
    dos_distance,
    matrix_levels,
    score_devices,
)

KPOINTS = np.array([[0.0, 0.25, 0.25], [0.0, 0.25, -0.25], [0.0, 0.0, 0.5]])
WEIGHTS = np.array([0.25, 0.25, 0.5])


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices on several threads are slow where other tests run beside."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def operators():
    pattern = make_pattern(n_sites=32)
    return random_operator(pattern, seed=1, scale=1.5), overlap_like(pattern)


def dense(h, s, k):
    return scipy.linalg.eigh(h.to_csr(k).toarray(), s.to_csr(k).toarray(), eigvals_only=True)


def test_dense_levels_are_those_of_scipy(operators):
    h, s = operators
    for k, levels in zip(KPOINTS, device_levels(h, s, KPOINTS), strict=True):
        assert levels.first == 0
        np.testing.assert_allclose(levels.energies_ev, dense(h, s, k), atol=1e-11)


@pytest.mark.parametrize("k", [*KPOINTS, [0.0, 0.1, 0.3]])
@pytest.mark.parametrize("window", [(-2.0, 2.0), (-0.3, 0.1), (2.0, 9.0)])
def test_sliced_levels_equal_dense_ones(operators, k, window, monkeypatch):
    monkeypatch.setattr(spectrum, "SLICE_STATES", 30)
    h, s = operators
    expected = dense(h, s, k)
    found = matrix_levels(h.to_csr(k), s.to_csr(k), window, dense_limit=0)
    start, stop = np.searchsorted(expected, window)
    assert found.first == start
    assert len(found.energies_ev) == stop - start
    np.testing.assert_allclose(found.energies_ev, expected[start:stop], atol=1e-9)


def test_sliced_levels_reach_indices_far_outside_the_window(operators):
    h, s = operators
    k = KPOINTS[0]
    expected = dense(h, s, k)
    wanted = range(3, len(expected) - 3)
    found = matrix_levels(h.to_csr(k), s.to_csr(k), (-0.1, 0.1), indices=wanted, dense_limit=0)
    np.testing.assert_allclose(found.at(wanted), expected[3:-3], atol=1e-9)


def test_sliced_levels_with_degenerate_and_singular_shifts():
    energies = np.repeat([-1.0, 0.0, 0.5, 1.0], [3, 5, 4, 2])
    h = scipy.sparse.csr_array(np.diag(energies))
    s = scipy.sparse.csr_array(np.eye(len(energies)))
    found = matrix_levels(h, s, (-0.6, 1.5), dense_limit=0)
    assert found.first == 3
    np.testing.assert_allclose(found.energies_ev, energies[3:], atol=1e-5)
    exactly_at_a_level = matrix_levels(h, s, (0.0, 0.7), dense_limit=0)
    assert exactly_at_a_level.first in (3, 8)


def test_reference_against_itself_is_exactly_zero(operators):
    h, s = operators
    reference = device_levels(h, s, KPOINTS)
    again = device_levels(h, s, KPOINTS, matching=reference)
    errors = compare_levels(reference, again, WEIGHTS)
    assert errors.mae_mev == errors.mean_mev == errors.largest_mev == errors.dos_distance == 0
    assert errors.n_states > 30


@pytest.mark.parametrize("dense_limit", [0, 4000])
def test_a_rigid_shift_is_its_own_error(operators, dense_limit):
    h, s = operators
    reference = device_levels(h, s, KPOINTS, dense_limit=dense_limit)
    shifted = device_levels(h + 0.35 * s, s, KPOINTS, matching=reference, dense_limit=dense_limit)
    errors = compare_levels(reference, shifted, WEIGHTS)
    assert errors.mae_mev == pytest.approx(350, rel=1e-8)
    assert errors.mean_mev == pytest.approx(350, rel=1e-8)
    assert errors.largest_mev == pytest.approx(350, rel=1e-8)
    assert 0 < errors.dos_distance < 2


@pytest.mark.parametrize("dense_limit", [0, 4000])
def test_spectra_far_off_still_score(operators, dense_limit):
    h, s = operators
    reference = device_levels(h, s, KPOINTS[:1])
    far = device_levels(h + 40.0 * s, s, KPOINTS[:1], matching=reference, dense_limit=dense_limit)
    errors = compare_levels(reference, far, WEIGHTS[:1])
    assert errors.mae_mev == pytest.approx(40_000, rel=1e-8)
    assert errors.dos_distance == pytest.approx(1.0)  # the window lost all its states
    nothing = device_levels(0.0 * h, s, KPOINTS[:1], matching=reference)
    inside = reference[0].energies_ev[np.abs(reference[0].energies_ev) <= 2]
    expected = 1000 * np.abs(inside).mean()
    assert compare_levels(reference, nothing, [1.0]).mae_mev == pytest.approx(expected)


def test_states_are_matched_by_absolute_index_and_weighted_by_k():
    reference = [
        Levels(0, np.array([-5.0, -1.0, 0.5, 3.0])),
        Levels(7, np.array([1.0])),
    ]
    # One more state comes from below into the window, and none leaves it.
    predicted = [
        Levels(0, np.array([-1.5, -0.9, 0.7, 3.0])),
        Levels(5, np.array([0.2, 0.3, 1.4, 1.5])),
    ]
    errors = compare_levels(reference, predicted, np.array([0.75, 0.25]))
    assert errors.n_states == 3
    assert errors.mae_mev == pytest.approx(1000 * (0.75 * (0.1 + 0.2) + 0.25 * 0.4) / 1.75)
    assert errors.largest_mev == pytest.approx(400)
    assert errors.mean_mev == pytest.approx(errors.mae_mev)


def test_distance_of_densities_of_states_by_hand():
    def distance(ours, theirs):
        one = [Levels(0, np.array(ours)), Levels(0, np.array([0.5]))]
        other = [Levels(0, np.array(theirs)), Levels(0, np.array([0.5]))]
        return dos_distance(one, other, np.array([1.0, 0.0]))

    assert distance([0.0, 1.0], [0.0, 1.0]) == 0
    assert distance([0.0], [1.0]) == pytest.approx(2.0, rel=1e-6)
    assert distance([0.0, 1.0], [0.0]) == pytest.approx(0.5, rel=1e-6)
    # Two Gaussians d apart: 2 erf(d / (2 sqrt(2) sigma)).
    expected = 2 * scipy.special.erf(0.05 / (2 * np.sqrt(2) * 0.05))
    assert distance([0.3], [0.35]) == pytest.approx(expected, rel=1e-3)
    # A state that crosses the edge of the window takes its half with it, not more.
    assert distance([0.0, 1.9999], [0.0, 2.0001]) < 0.01


def test_levels_that_were_not_computed_are_no_answer():
    with pytest.raises(ValueError, match="not among"):
        Levels(4, np.zeros(3)).at(range(3, 5))


def test_windows_without_states_are_unavailable():
    levels = [Levels(0, np.array([-9.0, 9.0]))]
    errors = compare_levels(levels, levels, np.array([1.0]))
    assert isinstance(errors, Unavailable)
    assert "no state between -2 and 2 eV" in errors.reason
    assert score_devices({"a": errors}) == errors


def test_devices_are_averaged():
    a, b = (
        SpectrumErrors(mae_mev=x, mean_mev=-x, largest_mev=2 * x, dos_distance=0.1, n_states=7)
        for x in (10.0, 30.0)
    )
    section = score_devices({"a": a, "b": b, "c": Unavailable(reason="no state")})
    assert section.mae_mev == 20
    assert section.largest_mev == 60
    assert section.n_states == 14
    assert (section.bounds_mev.low, section.bounds_mev.high) == (10, 30)
    assert set(section.devices) == {"a", "b", "c"}


def test_indefinite_overlap_is_named(operators):
    h, s = operators
    with pytest.raises(VcmbenchError, match="not positive definite"):
        matrix_levels(h.to_csr(), (s - 3.0 * s).to_csr())
