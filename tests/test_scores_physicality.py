"""Equivariance residuals of models that keep, or break, one symmetry at a time."""

from __future__ import annotations

import numpy as np
import pytest
from score_toys import BASIS, make_structure

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.harmonics import real_harmonics
from vcmbench.scores.physicality import cut_out, equivariance, relabel, residual, section
from vcmbench.scores.result import Hermiticity, Unavailable
from vcmbench.structure import Structure

NAMES = ("rotation", "inversion", "permutation", "translation", "reimaging")


def exact(structure: Structure, cutoff: float = 5.0) -> BlockMatrix:
    """Equivariant by construction: outer products of harmonics of the bond seen from each end."""
    pattern = BlockPattern.from_structure(structure, BASIS, cutoff)
    values = np.zeros(pattern.n_entries)
    for slab in pattern.slabs:
        blocks = slab.blocks
        off = ~pattern.is_onsite[blocks]
        vector, distance = pattern.vector[blocks][off], pattern.distance[blocks][off]
        smooth = (np.cos(np.pi * distance / cutoff) + 1) ** 2

        def features(species, sign, vector=vector):
            shells = [real_harmonics(l, sign * vector) for l in BASIS.shells_of(species)]
            return np.concatenate(shells, axis=1)

        out = np.zeros((slab.n_blocks, slab.n_i, slab.n_j))
        rows, columns = features(slab.species_i, 1), features(slab.species_j, -1)
        out[off] = smooth[:, None, None] * rows[:, :, None] * columns[:, None, :]
        out[~off] = -np.eye(slab.n_i, slab.n_j)
        values[slab.entries] = out.ravel()
    return BlockMatrix(pattern, values)


@pytest.fixture(scope="module")
def structure() -> Structure:
    return make_structure()


def residuals(predict, structure):
    found = equivariance(predict, "toy", structure)
    return {name: getattr(found, name).largest for name in NAMES}


def test_an_exact_model_has_no_residual(structure):
    assert all(value < 1e-12 for value in residuals(exact, structure).values())
    found = equivariance(lambda s: exact(s).directed(), "toy", structure)
    assert found.largest < 1e-12
    assert found.n_sites == structure.n_sites
    assert found.rotation.mean <= found.rotation.largest


def altered(change):
    def predict(structure: Structure) -> BlockMatrix:
        matrix = exact(structure)
        return matrix.with_values(matrix.values + change(structure, matrix.pattern))

    return predict


def per_block(pattern, values):
    return np.repeat(values, np.diff(pattern.offset))


@pytest.mark.parametrize(
    ("broken", "change"),
    [
        # Depends on the direction of bonds in a fixed frame; even, but in odd s-p blocks, too.
        ({"rotation", "inversion"}, lambda s, p: 0.1 * per_block(p, np.abs(p.vector[:, 0]))),
        # Depends on the numbering of the sites.
        (
            {"rotation", "inversion", "permutation"},
            lambda s, p: 0.1 * per_block(p, p.pair[:, 0] * ~p.is_onsite),
        ),
        # Depends on where the origin is, and so on every operation but a renumbering.
        (
            {"rotation", "inversion", "translation", "reimaging"},
            lambda s, p: per_block(p, s.positions[p.pair].mean(axis=1)[:, 0] * p.is_onsite),
        ),
        # Depends on how the sites are imaged.
        (
            {"rotation", "inversion", "reimaging"},
            lambda s, p: per_block(p, 0.1 * np.abs(p.shift).sum(axis=1)),
        ),
    ],
)
def test_a_broken_symmetry_is_told(structure, broken, change):
    found = residuals(altered(change), structure)
    for name in NAMES:
        assert (found[name] > 1e-3) == (name in broken), name
        assert name in broken or found[name] < 1e-10, name


def test_wrong_parity_shows_under_inversion_only(structure):
    """The handedness of four sites is a pseudo-scalar: rotations keep it, an inversion does not."""

    def handedness(structure, pattern):
        a, b, c = (structure.positions[i] - structure.positions[0] for i in (1, 2, 3))
        identity = [
            np.where(pattern.is_onsite[s.blocks, None, None], np.eye(s.n_i, s.n_j), 0.0).ravel()
            for s in pattern.slabs
        ]
        return np.dot(a, np.cross(b, c)) / 100 * np.concatenate(identity)

    found = residuals(altered(handedness), structure)
    assert found["rotation"] < 1e-10
    assert found["translation"] < 1e-10
    assert found["inversion"] > 1e-3


def test_relabelled_operators_have_the_same_bands(structure):
    matrix = exact(structure).directed()
    rng = np.random.default_rng(1)
    order = rng.permutation(structure.n_sites)
    place = np.argsort(order)
    moves = rng.integers(-2, 3, (structure.n_sites, 3))
    changed = structure.moved(structure.positions + moves @ structure.cell).permuted(order)
    other = relabel(matrix, changed, place, moves)
    assert np.allclose(np.sort(other.pattern.distance), np.sort(matrix.pattern.distance))
    k = (0.13, -0.2, 0.31)
    for one, two in ((matrix, other), (matrix.reversed(), other.reversed())):
        first, second = (np.linalg.eigvals(m.to_csr(k).toarray()) for m in (one, two))
        np.testing.assert_allclose(np.sort_complex(first), np.sort_complex(second), atol=1e-9)


def test_residual_counts_blocks_that_only_one_has(structure):
    matrix = exact(structure)
    both = matrix.directed()
    largest = np.abs(matrix.values).max()
    wide, narrow = exact(structure, 5.0), matrix.truncate(3.0)
    dropped = np.abs(matrix.select(matrix.pattern.distance >= 3.0).values).max() / largest
    assert residual(both, narrow).largest == pytest.approx(dropped)
    assert residual(narrow.directed(), wide).largest == pytest.approx(
        dropped * largest / np.abs(narrow.values).max()
    )
    assert residual(both, matrix).largest == residual(both, matrix).mean == 0


def test_cut_outs_are_small_periodic_and_rich():
    structure = make_structure(n_sites=60, length=60.0)
    piece = cut_out(structure, 20)
    assert piece.n_sites == 20
    assert len(piece.species_list) == len(structure.species_list) == 4
    fraction = (piece.positions @ np.linalg.inv(piece.cell))[:, 0]
    gap = (1 - np.ptp(fraction)) * np.linalg.norm(piece.cell[0])
    assert gap == pytest.approx(2.5)
    assert np.linalg.norm(piece.cell[0]) < 40
    np.testing.assert_array_equal(piece.cell[1:], structure.cell[1:])
    # Regions and ghosts stay with their sites.
    x = (structure.positions @ np.linalg.inv(structure.cell))[:, 0] % 1
    for number, ghost, region, f in zip(
        piece.numbers, piece.is_ghost, piece.region, piece.positions, strict=True
    ):
        match = np.isclose(x, (f @ np.linalg.inv(structure.cell))[0] % 1, atol=1e-9)
        assert match.any()
        site = int(match.argmax())
        assert (number, ghost, region) == (
            structure.numbers[site],
            structure.is_ghost[site],
            structure.region[site],
        )
    assert cut_out(structure, 60) is structure


def test_cut_outs_serve_to_measure_equivariance():
    piece = cut_out(make_structure(n_sites=120, length=90.0))
    found = equivariance(exact, "toy", piece)
    assert (found.n_sites, found.device) == (100, "toy")
    assert found.largest < 1e-12


def test_section_keeps_the_worst_residual_and_the_reason():
    worst = section(
        [Hermiticity(largest_mev=1, mean_mev=0.5), Hermiticity(largest_mev=3, mean_mev=0.1)],
        Unavailable(reason="predictions only"),
    )
    assert worst.hermiticity == Hermiticity(largest_mev=3, mean_mev=0.5)
    assert worst.equivariance == Unavailable(reason="predictions only")
