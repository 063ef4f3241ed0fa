"""Exact sums against rational arithmetic, quantiles against NumPy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from vcmbench.scores.statistics import GroupedSums, LogHistogram, bootstrap


def wide_range(n: int, seed: int = 0) -> np.ndarray:
    """Signed values over 24 decades, whose float64 sum depends on the order."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) * 10.0 ** rng.integers(-16, 8, n)


def grouped(key: np.ndarray, values: np.ndarray) -> GroupedSums:
    return GroupedSums.of(key, np.ones_like(key), values[None], np.abs(values))


def test_sums_are_those_of_rational_arithmetic():
    values = wide_range(3000)
    key = np.random.default_rng(1).integers(0, 5, values.size)
    result = grouped(key, values)
    naive = [values[key == k].sum() for k in range(5)]
    expected = [float(sum(map(Fraction, values[key == k].tolist()))) for k in range(5)]
    assert naive != expected  # the sample can tell exact from ordinary summation
    assert result.sums[:, 0].tolist() == pytest.approx(expected, rel=1e-15)
    # Digits end at 2^-96, so each value may lose less than that.
    for found, wanted in zip(result.sums[:, 0], expected, strict=True):
        assert abs(found - wanted) <= 3000 * 2.0**-96 + math.ulp(wanted)


def test_small_values_of_either_sign_are_not_lost():
    values = np.array([-1e-20, 3.0, -3.0, 2e-19])
    found = grouped(np.zeros(4, np.int64), values).sums[0, 0]
    assert found == pytest.approx(1.9e-19, abs=4 * 2.0**-96)


@pytest.mark.parametrize("seed", range(5))
def test_parts_add_up_in_any_order_and_grouping(seed):
    values = wide_range(1000, seed)
    rng = np.random.default_rng(seed)
    key = rng.integers(0, 7, values.size) * 10**12
    whole = grouped(key, values)
    parts = [
        grouped(key[chosen], values[chosen])
        for chosen in np.array_split(rng.permutation(values.size), 6)
    ]
    a, b, c, *rest = parts
    left = (a + b) + c
    right = a + (c + b)
    assert left == right
    for part in rest:
        left = part + left
    assert left == whole
    assert left + GroupedSums.zero(1) == whole
    assert np.array_equal(left.sums, whole.sums)
    total = whole.regroup(0)
    assert total == (left.select(left.key > 0).regroup(0) + left.select(left.key == 0).regroup(0))
    assert total.count.tolist() == [1000]
    assert total.largest[0] == np.abs(values).max()


def test_sums_that_would_overflow_are_refused():
    with pytest.raises(ValueError, match="expected below"):
        grouped(np.zeros(1, np.int64), np.array([1e18]))


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.99, 1.0])
def test_quantiles_to_the_declared_resolution(fraction):
    values = 0.01 * np.abs(wide_range(20001))
    found = LogHistogram.of(values).quantile(fraction)
    expected = np.quantile(values, fraction, method="inverted_cdf")
    assert expected <= found <= expected * (1 + 2**-8)


def test_histograms_merge_and_zero_counts_as_zero():
    values = np.concatenate([np.zeros(99), [0.5]])
    whole = LogHistogram.of(values)
    assert LogHistogram.of(values[:50]) + LogHistogram.of(values[50:]) == whole
    assert whole + LogHistogram.zero() == whole
    assert whole.counts.sum() == 100
    assert whole.quantile(0.99) == 0.0
    assert whole.quantile(0.995) >= 0.5
    assert LogHistogram.zero().quantile(0.5) == 0.0
    assert (2 * whole - whole) == whole


def test_bootstrap_is_reproducible_and_brackets_the_ratio():
    sums, counts = np.array([10.0, 40.0, 90.0]), np.array([10.0, 20.0, 30.0])
    interval = bootstrap(sums, counts)
    assert interval == bootstrap(sums, counts)
    many = np.random.default_rng(0).normal(size=30)
    assert bootstrap(many) != bootstrap(many, seed=1)
    # The standard error of a mean, to the accuracy of the percentile method.
    low, high = bootstrap(many)
    assert high - low == pytest.approx(2 * 1.96 * many.std() / np.sqrt(30), rel=0.1)
    assert 1.0 <= interval.low < sums.sum() / counts.sum() < interval.high <= 3.0
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0)
    assert bootstrap([2.0]) is None
