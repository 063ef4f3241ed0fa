"""Errors of H against sums over dense directed entries."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from score_toys import BASIS, make_pattern, make_structure, overlap_like, random_operator

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.scores import hamiltonian
from vcmbench.scores.hamiltonian import (
    HamiltonianStatistic,
    align,
    block_statistic,
    device_errors,
    score_device,
    score_devices,
    skill,
)
from vcmbench.structure import Region


@pytest.fixture(scope="module")
def pattern() -> BlockPattern:
    return make_pattern()


@pytest.fixture(scope="module")
def reference(pattern) -> BlockMatrix:
    return random_operator(pattern, seed=1)


@pytest.fixture(scope="module")
def overlap(pattern) -> BlockMatrix:
    return overlap_like(pattern)


@pytest.fixture(scope="module")
def predicted(reference) -> BlockMatrix:
    return reference + random_operator(reference.pattern, seed=2, scale=0.01)


def scored(reference, overlap, predicted, device="toy"):
    return score_device(
        device_errors(device, reference, overlap, align(predicted, reference.pattern))
    )


class DirectedEntries:
    """All entries of all directed blocks, one by one: slow and simple."""

    def __init__(self, reference: BlockMatrix, predicted: BlockMatrix) -> None:
        both, other = reference.directed(), predicted.directed()
        pattern, structure = both.pattern, both.pattern.structure
        rows = []
        for block in range(pattern.n_blocks):
            i, j = pattern.pair[block].tolist()
            entries = slice(*pattern.offset[block : block + 2].tolist())
            species = [structure.species_list[structure.species_index[s]] for s in (i, j)]
            ls = [[l for l in BASIS.shells_of(s) for _ in range(2 * l + 1)] for s in species]
            labels = sorted(
                zip((s.label for s in species), species, strict=True), key=lambda x: x[1]
            )
            regions = sorted([structure.region[i], structure.region[j]])
            names = [Region(r).label for r in regions]
            for entry, (l, l2) in enumerate((a, b) for a in ls[0] for b in ls[1]):
                rows.append(
                    {
                        "error": other.values[entries][entry] - both.values[entries][entry],
                        "distance": pattern.distance[block],
                        "pair": "-".join(label for label, _ in labels),
                        "shell": "-".join("spd"[x] for x in sorted((l, l2))),
                        "site": "on-site" if pattern.distance[block] < 1e-9 else "off-site",
                        "ghost": "ghost" if any(s.is_ghost for s in species) else "no-ghost",
                        "region": names[0] if names[0] == names[1] else "/".join(names),
                    }
                )
        self.columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        self.error_mev = 1000 * self.columns["error"]
        self.near = self.columns["distance"] < 8.0


def test_every_number_equals_the_sum_over_directed_entries(reference, overlap, predicted):
    score = scored(reference, overlap, predicted)
    truth = DirectedEntries(reference, predicted)
    error, near = truth.error_mev, truth.near
    assert 0 < near.sum() < len(near)
    assert score.n_entries == near.sum()
    assert score.n_entries_full == len(near)
    assert score.mae_mev == pytest.approx(np.abs(error[near]).mean(), rel=1e-13)
    assert score.mae_full_mev == pytest.approx(np.abs(error).mean(), rel=1e-13)
    assert score.mean_mev == pytest.approx(error[near].mean(), rel=1e-10)
    assert score.rmse_mev == pytest.approx(np.sqrt((error[near] ** 2).mean()), rel=1e-13)
    assert score.rmse_full_mev == pytest.approx(np.sqrt((error**2).mean()), rel=1e-13)
    for found, values in ((score.p99_mev, error[near]), (score.p99_full_mev, error)):
        expected = np.quantile(np.abs(values), 0.99, method="inverted_cdf")
        assert expected <= found <= expected * (1 + 2**-8)
    assert score.largest.error_mev == pytest.approx(np.abs(error[near]).max(), rel=1e-13)
    assert score.largest_full.error_mev == pytest.approx(np.abs(error).max(), rel=1e-13)
    shells = truth.columns["distance"].astype(int)
    groups = {
        **{("by_site", k): truth.columns["site"] == k for k in score.by_site},
        **{("by_pair", k): truth.columns["pair"] == k for k in score.by_pair},
        **{("by_shell", k): truth.columns["shell"] == k for k in score.by_shell},
        **{("by_ghost", k): truth.columns["ghost"] == k for k in score.by_ghost},
        **{("by_region", k): truth.columns["region"] == k for k in score.by_region},
    }
    found = [(getattr(score, name)[key], mask) for (name, key), mask in groups.items()]
    found += [(shell, shells == shell.low_ang) for shell in score.by_distance]
    for group, mask in found:
        inside = mask & near
        assert group.n_entries == inside.sum()
        assert group.n_entries_full == mask.sum() > 0
        values, full = np.abs(error[inside]), np.abs(error[mask])
        assert group.mae_full_mev == pytest.approx(full.mean(), rel=1e-13)
        assert group.rmse_full_mev == pytest.approx(np.sqrt((full**2).mean()), rel=1e-13)
        assert group.largest_full_mev == pytest.approx(full.max(), rel=1e-13)
        if inside.any():
            assert group.mae_mev == pytest.approx(values.mean(), rel=1e-13)
            assert group.rmse_mev == pytest.approx(np.sqrt((values**2).mean()), rel=1e-13)
            assert group.largest_mev == pytest.approx(values.max(), rel=1e-13)
        else:
            assert group.mae_mev is group.rmse_mev is group.largest_mev is None
    for breakdown in (score.by_site, score.by_pair, score.by_shell, score.by_ghost):
        assert sum(group.n_entries_full for group in breakdown.values()) == len(near)
    assert sum(group.n_entries for group in score.by_region.values()) == near.sum()
    assert sum(shell.n_entries for shell in score.by_distance) == near.sum()


def test_largest_error_is_found_where_it_was_put(reference, overlap):
    pattern = reference.pattern
    far, near = pattern.distance > 8.0, (pattern.distance < 8.0) & ~pattern.is_onsite
    values = reference.values.copy()
    places = [int(np.flatnonzero(mask)[5]) for mask in (near, far)]
    for block, error in zip(places, (-0.25, 0.5), strict=True):
        values[pattern.offset[block] + 2] += error
    score = scored(reference, overlap, reference.with_values(values))
    for found, block, error in (
        (score.largest, places[0], 250),
        (score.largest_full, places[1], 500),
    ):
        assert found.error_mev == pytest.approx(error, rel=1e-12)
        assert found.sites == tuple(pattern.pair[block].tolist())
        assert found.shift == tuple(pattern.shift[block].tolist())
        assert found.distance_ang == pytest.approx(pattern.distance[block])
        assert found.device == "toy"


def test_reference_against_itself_is_exactly_zero(reference, overlap):
    score = scored(reference, overlap, reference)
    data = score.model_dump()
    errors = [value for name, value in _leaves(data) if name.endswith("_mev")]
    assert len(errors) > 50
    assert set(errors) <= {0.0, None}


def _leaves(data, name=""):
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, key)
    elif isinstance(data, list):
        for value in data:
            yield from _leaves(value, name)
    else:
        yield name, data


def test_parts_of_a_device_add_up_to_the_last_bit(reference, overlap, predicted, monkeypatch):
    def statistic(blocks):
        return block_statistic(
            "toy",
            *(m.select(blocks) for m in (reference, overlap, predicted)),
            gauge_shift_ev=0.123,
        )

    whole = statistic(np.ones(reference.pattern.n_blocks, bool))
    labels = np.random.default_rng(0).integers(0, 5, reference.pattern.n_blocks)
    parts = [statistic(labels == label) for label in range(5)]
    assert reduce(add, parts) == whole
    assert reduce(add, parts[::-1], HamiltonianStatistic.zero()) == whole
    assert (parts[0] + parts[1]) + parts[2] == parts[0] + (parts[1] + parts[2])
    for chunk in (1, 700, 10**9):
        monkeypatch.setattr(hamiltonian, "CHUNK_ENTRIES", chunk)
        assert statistic(np.ones(reference.pattern.n_blocks, bool)) == whole


def test_gauge_shift_is_recovered(reference, overlap):
    shifted = reference + 0.017 * overlap
    score = scored(reference, overlap, shifted)
    assert score.gauge.shift_mev == pytest.approx(17, rel=1e-10)
    assert score.gauge.mae_mev < 1e-9 < score.mae_mev
    assert score.gauge.mae_full_mev < 1e-9
    assert [layer.shift_mev for layer in score.layers] == pytest.approx(
        [17] * len(score.layers), rel=1e-10
    )


def test_gauge_shift_and_mae_after_it_equal_the_dense_projection(reference, overlap, predicted):
    score = scored(reference, overlap, predicted)
    delta, s = (predicted - reference).directed(), overlap.directed()
    mu = (s.values @ delta.values) / (s.values @ s.values)
    assert score.gauge.shift_mev == pytest.approx(1000 * mu, rel=1e-10)
    left = np.abs(delta.values - mu * s.values) * 1000
    assert score.gauge.mae_full_mev == pytest.approx(left.mean(), rel=1e-12)
    near = delta.pattern.entry_mask(delta.pattern.distance < 8.0)
    assert score.gauge.mae_mev == pytest.approx(left[near].mean(), rel=1e-12)


def test_local_shift_shows_where_the_potential_is_wrong(reference, overlap):
    structure = reference.pattern.structure
    pattern = reference.pattern
    profile = np.where(structure.positions[:, 0] < 13.0, 0.1, -0.05)
    mean = profile[pattern.pair].mean(axis=1)
    potential = overlap.with_values(overlap.values * np.repeat(mean, np.diff(pattern.offset)))
    score = scored(reference, overlap, reference + potential)
    assert len(score.layers) > 4
    inner = [layer for layer in score.layers if min(abs(layer.x_ang - c) for c in (0, 13, 26)) > 2]
    assert inner
    for layer in inner:
        assert layer.shift_mev == pytest.approx(100 if layer.x_ang < 13 else -50, abs=2)


def test_layers_equal_the_projection_of_directed_blocks(reference, overlap, predicted):
    delta, s = (predicted - reference).directed(), overlap.directed()
    pattern, structure = delta.pattern, delta.pattern.structure
    n_layers = 12  # 26 Å / 2.12 Å
    x = structure.positions @ np.linalg.inv(structure.cell)[:, 0]
    layer = np.round(x * n_layers).astype(int) % n_layers
    of_entry = np.repeat(layer[pattern.pair[:, 0]], np.diff(pattern.offset))
    score = scored(reference, overlap, predicted)
    assert len(score.layers) == len(set(layer.tolist()))
    for found in score.layers:
        mine = of_entry == round(found.x_ang / 26 * n_layers)
        mu = (s.values[mine] @ delta.values[mine]) / (s.values[mine] @ s.values[mine])
        assert found.shift_mev == pytest.approx(1000 * mu, rel=1e-10)


def test_missing_blocks_count_as_zero_and_extra_ones_apart(reference, overlap, predicted):
    pattern = reference.pattern
    kept = np.random.default_rng(4).random(pattern.n_blocks) < 0.7
    wide_pattern = BlockPattern.from_structure(pattern.structure, BASIS, 13.0)
    outside = ~pattern.locate(wide_pattern).found
    wide = predicted.select(kept).align(wide_pattern)
    extra = np.zeros(wide_pattern.n_entries)
    extra[wide_pattern.entry_mask(outside)] = 0.03
    holes = wide_pattern.locate(pattern.subset(~kept)).block
    present = np.ones(wide_pattern.n_blocks, bool)
    present[holes] = False
    delivered = wide.with_values(wide.values + extra).select(present)
    zeros = predicted.with_values(np.where(pattern.entry_mask(kept), predicted.values, 0))
    expected = scored(reference, overlap, zeros)
    for matrix in (delivered, delivered.directed()):
        score = scored(reference, overlap, matrix)
        assert score.mae_mev == expected.mae_mev
        assert score.by_pair == expected.by_pair
        assert score.support.missing_blocks == pattern.weight[~kept].sum()
        assert score.support.extra_blocks == wide_pattern.weight[outside].sum() > 0
        assert score.support.extra_largest_mev == pytest.approx(30)
        assert score.hermiticity.largest_mev == 0


def test_prediction_without_any_block_is_scored_as_zero(reference, overlap):
    nothing = reference.select(np.zeros(reference.pattern.n_blocks, bool))
    score = scored(reference, overlap, nothing)
    assert score.mae_full_mev == pytest.approx(1000 * np.abs(reference.directed().values).mean())
    assert score.support.missing_blocks == reference.pattern.weight.sum()


def test_directed_predictions_are_symmetrised_and_their_residual_reported(reference, overlap):
    both = reference.directed()
    noise = np.random.default_rng(5).normal(scale=1e-3, size=both.values.size)
    noisy = both.with_values(both.values + noise)
    score = scored(reference, overlap, noisy)
    dense = noisy.align(both.pattern)
    turned = noisy.reversed()
    residual = np.abs(dense.values - turned.values)
    assert score.hermiticity.largest_mev == pytest.approx(1000 * residual.max(), rel=1e-12)
    truth = DirectedEntries(reference, noisy.symmetrise()[0])
    assert score.mae_full_mev == pytest.approx(np.abs(truth.error_mev).mean(), rel=1e-12)


def test_on_site_blocks_of_half_stored_predictions_are_symmetrised(reference, overlap):
    pattern = reference.pattern
    block = int(np.flatnonzero(pattern.is_onsite)[0])
    values = reference.values.copy()
    values[pattern.offset[block] + 1] += 0.2
    score = scored(reference, overlap, reference.with_values(values))
    assert score.hermiticity.largest_mev == pytest.approx(200)
    assert score.largest.error_mev == pytest.approx(100)
    assert score.mae_full_mev * score.n_entries_full == pytest.approx(200)


def test_devices_are_pooled_by_entries(reference, overlap, predicted):
    other_pattern = make_pattern(seed=3, n_sites=10)
    other = random_operator(other_pattern, seed=6)
    other_s = overlap_like(other_pattern, seed=7)
    worse = other + random_operator(other_pattern, seed=8, scale=0.1)
    errors = [
        device_errors("a", reference, overlap, align(predicted, reference.pattern)),
        device_errors("b", other, other_s, align(worse, other_pattern)),
    ]
    section = score_devices(errors, reference_mae_mev=50.0)
    a, b = section.devices["a"], section.devices["b"]
    total = a.n_entries + b.n_entries
    assert section.n_entries == total
    assert section.mae_mev == pytest.approx(
        (a.mae_mev * a.n_entries + b.mae_mev * b.n_entries) / total, rel=1e-13
    )
    assert section.device_mean_mae_mev == pytest.approx((a.mae_mev + b.mae_mev) / 2)
    assert section.device_mean_mae_mev != pytest.approx(section.mae_mev, rel=1e-3)
    assert section.gauge.mae_mev == pytest.approx(
        (a.gauge.mae_mev * a.n_entries + b.gauge.mae_mev * b.n_entries) / total, rel=1e-13
    )
    assert section.largest == b.largest
    assert section.skill == pytest.approx(1 - section.mae_mev / 50)
    assert section.mae_bounds_mev.low < section.mae_mev < section.mae_bounds_mev.high
    reverse = score_devices(errors[::-1], reference_mae_mev=50.0)
    assert reverse.mae_mev == section.mae_mev
    assert reverse.by_pair == section.by_pair


def test_skill():
    assert skill(5.0, 20.0) == 0.75
    assert skill(5.0, None) is None


def test_wrong_predictions_are_refused(reference, overlap):
    structure = reference.pattern.structure
    moved = structure.moved(structure.positions + 0.01)
    elsewhere = BlockPattern.from_structure(moved, BASIS, 8.0)
    with pytest.raises(VcmbenchError, match=r"positions.*0.01 Å away"):
        align(BlockMatrix.zeros(elsewhere), reference.pattern)
    fewer = BlockPattern.from_structure(make_structure(n_sites=5), BASIS, 8.0)
    with pytest.raises(VcmbenchError, match="found 5, expected 16 sites"):
        align(BlockMatrix.zeros(fewer), reference.pattern)
    with pytest.raises(VcmbenchError, match=r"toy.*at most 10000 eV"):
        scored(reference, overlap, reference.with_values(reference.values + 2e4))
    with pytest.raises(VcmbenchError, match="no devices"):
        score_devices([])


def test_structures_without_regions_have_no_breakdown_by_region(overlap):
    structure = make_structure()
    bulk = BlockPattern.from_structure(
        type(structure).create(structure.numbers, structure.positions, structure.cell), BASIS, 5.0
    )
    h = random_operator(bulk, seed=1)
    assert scored(h, overlap_like(bulk), 1.1 * h).by_region == {}
