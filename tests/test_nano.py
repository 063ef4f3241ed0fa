"""The release vcm-nano: whole, as its recipe says, split as documented, its T(E) reproducible."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vcmbench.device import HEADLINE_CUTOFF_ANG
from vcmbench.partition import UNLABELLED, block_parts
from vcmbench.production import Site
from vcmbench.recipe import Recipe
from vcmbench.release import find_release, verify_release
from vcmbench.transport import Lead, transmission

RECIPE = Path(__file__).parents[1] / "data_cards/vcm-nano.recipe.yml"
OUT_OF_DISTRIBUTION = ("ood-filament", "ood-thick", "ood-long")


@pytest.fixture(scope="module")
def nano():
    return find_release("vcm-nano@1.0.0")


def test_every_byte_and_every_matrix_is_as_released(nano):
    assert verify_release(nano) == []


def test_release_is_what_the_recipe_asks_for(nano, tmp_path):
    recipe = Recipe.read(RECIPE)
    site = Site(recipe, nano.folder, tmp_path)
    records = {job.id: site.finished("devices", job.id, job) for job in recipe.devices}
    assert set(records) == set(nano.manifest.devices)
    for name, record in records.items():
        assert record is not None, name
        assert record.run.converged
        assert record.content_digest == nano.manifest.devices[name].digest
    assert site.finished("leads", recipe.lead, None) is not None


def test_split_has_what_a_benchmark_needs(nano):
    rows = {row["id"]: row for row in pq.read_table(nano.folder / "index.parquet").to_pylist()}
    parts = nano.device_parts.parts
    assert len(parts["train"]) >= 6
    assert len(parts["test"]) >= 4
    assert len(parts["validation"]) >= 1
    assert all(len(parts[name]) == 1 for name in OUT_OF_DISTRIBUTION)
    families = {name: {rows[d]["family"] for d in ids} for name, ids in parts.items()}
    shared = Counter(family for found in families.values() for family in found)
    assert set(shared.values()) == {1}
    vacancies = [rows[d]["n_vacancies"] for d in parts["train"]]
    assert min(vacancies) == 0
    assert max(vacancies) >= 4
    (filament,) = parts["ood-filament"]
    assert rows[filament]["n_vacancies"] > max(vacancies)
    assert len(families["train"]) >= 3
    assert len(families["test"]) == len(parts["test"])


def test_partition_labels_are_far_apart(nano):
    """The figures of the card, and no block of one part with a site of another."""
    split = nano.partition()
    device = nano.device(split.device)
    labels = block_parts(split, device.pattern)
    near = device.pattern.distance < HEADLINE_CUTOFF_ANG
    names = list(split.parts)
    counts = {name: int(((labels == n) & near).sum()) for n, name in enumerate(names)}
    assert counts == {"train": 20460, "validation": 1338, "test": 6763}
    sites = [np.unique(device.pattern.pair[labels == n]) for n in range(len(names))]
    for n, first in enumerate(sites):
        for second in sites[:n]:
            x = [device.structure.positions[group, 0] for group in (first, second)]
            apart = np.abs(x[0][:, None] - x[1])
            apart = np.minimum(apart, split.period_ang - apart)
            assert apart.min() > split.guard_ang - 1e-9
    assert (labels == UNLABELLED).any()


@pytest.mark.parametrize("name", ["s09-filament", "s10-thick"])
def test_stored_transmission_is_reproduced(nano, name):
    device = nano.device(name)
    bulk = nano.lead(device.lead)
    stored = device.transport
    chosen = [60, 130]
    found = transmission(
        device.hamiltonian,
        device.overlap,
        Lead(bulk.hamiltonian, bulk.overlap),
        stored.energies_ev[chosen],
        stored.kpoints,
        stored.weights,
    )
    assert found.by_k == pytest.approx(stored.transmission[:, chosen], rel=1e-6, abs=0)
    assert found.gates.passed
