"""Species means: what they average, and that rotations commute with them."""

from __future__ import annotations

import numpy as np
import pytest
from model_toys import CUTOFF, HF, O, make_structure, noise, orthogonal

from vcmbench.errors import VcmbenchError
from vcmbench.harmonics import rotate_matrix
from vcmbench.models import species_mean
from vcmbench.models.species_mean import Shells, SpeciesMean, fit_species_mean
from vcmbench.structure import Structure

SHELLS = Shells(cutoff_ang=CUTOFF, n_shells=6)


@pytest.fixture(scope="module")
def model() -> SpeciesMean:
    return fit_species_mean([noise(make_structure(s), s) for s in range(3)], SHELLS)


@pytest.mark.parametrize("proper", [True, False])
def test_equivariant(model, proper):
    structure, rotation = make_structure(10), orthogonal(2, proper=proper)
    expected = rotate_matrix(model.predict(structure), rotation)
    found = model.predict(structure.transformed(rotation)).align(expected.pattern)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)


def test_permutation_of_sites_permutes_orbitals(model):
    structure, k = make_structure(11), (0.13, -0.21, 0.34)
    order = np.random.default_rng(0).permutation(structure.n_sites)
    matrix = model.predict(structure)
    offset = matrix.pattern.orbital_offset
    orbitals = np.concatenate([np.arange(offset[s], offset[s + 1]) for s in order])
    expected = matrix.to_csr(k).toarray()[np.ix_(orbitals, orbitals)]
    found = model.predict(structure.permuted(order)).to_csr(k).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_onsite_is_the_mean_level_of_each_shell(model):
    """The trace over a shell is invariant: its mean is the training data's."""
    traces = []
    for seed in range(3):
        matrix = noise(make_structure(seed), seed)
        for slab in matrix.pattern.slabs:
            if slab.species_i == slab.species_j == HF:
                onsite = matrix.slab(slab)[matrix.pattern.is_onsite[slab.blocks]]
                d = range(5, 10)
                traces += [(b[0, 0], b[0, 1], np.trace(b[5:, 5:]) / 5) for b in onsite]
    block = model.predict(Structure.create([72], [[0, 0, 0]], 30 * np.eye(3))).values.reshape(
        10, 10
    )
    s, s_s, d_level = np.mean(traces, axis=0)
    assert block[0, 0] == pytest.approx(s)
    assert block[0, 1] == pytest.approx(s_s)
    assert block[1, 0] == pytest.approx(s_s)
    np.testing.assert_allclose(block[5:, 5:], d_level * np.eye(len(d)), atol=1e-12)
    assert np.abs(block[:2, 2:]).max() == 0


def test_blocks_are_means_by_distance_shell(model):
    """ss between O and Hf needs no rotation: its prediction is the plain mean over a shell."""
    values = []
    for seed in range(3):
        matrix = noise(make_structure(seed), seed)
        slab = next(s for s in matrix.pattern.slabs if (s.species_i, s.species_j) == (O, HF))
        distance = matrix.pattern.distance[slab.blocks]
        values += matrix.slab(slab)[(distance >= 3) & (distance < 4), 0, 0].tolist()
    assert len(values) > 20
    for distance in (3.01, 3.98):
        pair = Structure.create([8, 72], [[0, 0, 0], [0, distance, 0]], 30 * np.eye(3))
        predicted = model.predict(pair)
        assert predicted.values[predicted.pattern.offset[1]] == pytest.approx(np.mean(values))


def test_saved_and_loaded_it_is_the_same_model(model, tmp_path):
    model.save(tmp_path)
    loaded = species_mean.load(tmp_path)
    structure = make_structure(15)
    np.testing.assert_array_equal(loaded.predict(structure).values, model.predict(structure).values)
    near = loaded.predict_within(structure, 3.0)
    assert near.pattern.distance.max() < 3.0
    assert loaded.n_parameters == model.n_parameters > 100


def test_unknown_species_is_named(model):
    with pytest.raises(VcmbenchError, match=r"found N, expected only O, O\*, Hf"):
        model.predict(Structure.create([7], [[0, 0, 0]], 30 * np.eye(3)))
