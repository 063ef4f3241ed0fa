"""The canonical block layout against ASE's neighbour list and dense linear algebra."""

from __future__ import annotations

import ase.neighborlist
import numpy as np
import pytest
from ase import Atoms

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.structure import Structure

BASIS = OrbitalBasis(
    "test", {Species(8, False): (0, 1), Species(8, True): (0, 1), Species(72, False): (0, 0, 1, 2)}
)
CUTOFF = 5.0


def make_structure(seed: int = 0, n_sites: int = 12) -> Structure:
    """Sites of three species in a cell shorter than the cutoff along z, some outside the cell."""
    rng = np.random.default_rng(seed)
    cell = np.array([[9.0, 0, 0], [1.0, 6.5, 0], [0, 0.5, 4.1]])
    numbers = rng.choice([8, 72], n_sites)
    ghost = (numbers == 8) & (rng.random(n_sites) < 0.3)
    positions = (rng.random((n_sites, 3)) * 1.6 - 0.3) @ cell
    return Structure.create(numbers, positions, cell, is_ghost=ghost)


def random_matrix(structure: Structure, seed: int = 1) -> BlockMatrix:
    """Random Hermitian operator."""
    pattern = BlockPattern.from_structure(structure, BASIS, CUTOFF)
    values = np.random.default_rng(seed).normal(size=pattern.n_entries)
    return BlockMatrix(pattern, values).symmetrise()[0]


@pytest.fixture
def matrix() -> BlockMatrix:
    return random_matrix(make_structure())


def test_pattern_holds_every_pair_of_ase_once(matrix):
    structure, pattern = matrix.pattern.structure, matrix.pattern
    atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=True)
    i, j, shift = ase.neighborlist.neighbor_list("ijS", atoms, CUTOFF)
    expected = {tuple(row) for row in np.column_stack([i, j, shift]).tolist()}
    expected |= {(s, s, 0, 0, 0) for s in range(structure.n_sites)}
    both = matrix.directed().pattern
    found = [tuple(row) for row in np.column_stack([both.pair, both.shift]).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert int(pattern.weight.sum()) == len(expected)


def test_canonical_direction_and_order(matrix):
    pattern, structure = matrix.pattern, matrix.pattern.structure
    rank = list(zip(structure.species_index.tolist(), range(structure.n_sites), strict=True))
    species_pairs = []
    for (i, j), shift in zip(pattern.pair.tolist(), pattern.shift.tolist(), strict=True):
        assert rank[i] < rank[j] or (i == j and tuple(shift) >= (0, 0, 0))
        species_pairs.append((rank[i][0], rank[j][0], i, j, tuple(shift)))
    assert species_pairs == sorted(species_pairs)
    assert sum(s.n_blocks for s in pattern.slabs) == pattern.n_blocks
    assert sum(s.n_blocks * s.n_i * s.n_j for s in pattern.slabs) == pattern.n_entries


@pytest.mark.parametrize("k", [(0, 0, 0), (0.5, 0, 0.5), (0.1, -0.2, 0.3)])
def test_bloch_sum_equals_the_sum_over_directed_blocks(matrix, k):
    both = matrix.directed()
    pattern = both.pattern
    dense = np.zeros((pattern.n_orbitals, pattern.n_orbitals), complex)
    for block in range(pattern.n_blocks):
        i, j = pattern.pair[block]
        rows = slice(*pattern.orbital_offset[i : i + 2])
        columns = slice(*pattern.orbital_offset[j : j + 2])
        entries = both.values[pattern.offset[block] : pattern.offset[block + 1]]
        phase = np.exp(2j * np.pi * pattern.shift[block] @ np.array(k))
        dense[rows, columns] += phase * entries.reshape(rows.stop - rows.start, -1)
    result = matrix.to_csr(k)
    assert np.iscomplexobj(result) == (k == (0.1, -0.2, 0.3))
    np.testing.assert_allclose(result.toarray(), dense, atol=1e-12)
    np.testing.assert_allclose(dense, dense.conj().T, atol=1e-12)
    np.testing.assert_allclose(both.to_csr(k).toarray(), dense, atol=1e-12)


def test_site_translations_by_lattice_vectors_change_shifts_only(matrix):
    structure = matrix.pattern.structure
    moves = np.random.default_rng(3).integers(-1, 2, (structure.n_sites, 3))
    moved = structure.moved(structure.positions + moves @ structure.cell)
    pattern = BlockPattern.from_structure(moved, BASIS, CUTOFF)
    np.testing.assert_allclose(
        np.sort(pattern.distance), np.sort(matrix.pattern.distance), atol=1e-10
    )


def test_symmetrise_averages_directions_and_reports_the_residual(matrix):
    both = matrix.directed()
    noise = np.random.default_rng(2).normal(size=both.values.shape)
    noisy = both.with_values(both.values + noise)
    hermitian, residual = noisy.symmetrise()
    k = (0.1, 0.2, 0.3)
    dense = noisy.to_csr(k).toarray()
    np.testing.assert_allclose(
        hermitian.to_csr(k).toarray(), (dense + dense.conj().T) / 2, atol=1e-12
    )
    assert residual.max() > 0.5
    again, zero = hermitian.symmetrise()
    np.testing.assert_array_equal(again.values, hermitian.values)
    assert zero.max() == 0


def test_truncate_align_and_arithmetic(matrix):
    near = matrix.truncate(3.0)
    assert 0 < near.pattern.n_blocks < matrix.pattern.n_blocks
    assert near.pattern.distance.max() < 3.0
    back = near.align(matrix.pattern)
    kept = matrix.pattern.entry_mask(matrix.pattern.distance < 3.0)
    np.testing.assert_array_equal(back.values, np.where(kept, matrix.values, 0))
    np.testing.assert_array_equal(matrix.align(near.pattern).values, near.values)
    np.testing.assert_array_equal((2 * matrix - matrix).values, matrix.values)
    with pytest.raises(VcmbenchError, match="align"):
        matrix - near


def test_site_permutation_keeps_the_spectrum(matrix):
    structure = matrix.pattern.structure
    order = np.random.default_rng(5).permutation(structure.n_sites)
    place = np.argsort(order)
    both = matrix.directed()
    permuted = structure.permuted(order)
    pattern = BlockPattern.from_unsorted(
        permuted, BASIS, place[both.pattern.pair], both.pattern.shift, directed=True
    )
    index, found = pattern.locate(pattern)
    assert found.all()
    assert np.array_equal(index, np.arange(pattern.n_blocks))
    np.testing.assert_allclose(np.sort(pattern.distance), np.sort(both.pattern.distance))


@pytest.mark.parametrize(
    ("pair", "shift", "message"),
    [
        ([[0, 12]], [[0, 0, 0]], r"sites \[0, 12\].*0\.\.11"),
        ([[0, 0]], [[0, 0, -1]], "wrong direction"),
        ([[0, 0], [0, 0]], [[0, 0, 0], [0, 0, 0]], "repeats"),
        ([[0, 0]], [[0, 0, 300]], "at most 127"),
    ],
)
def test_bad_blocks_are_named(pair, shift, message):
    with pytest.raises(VcmbenchError, match=message):
        BlockPattern(make_structure(), BASIS, np.array(pair), np.array(shift))


def test_bad_values_are_named(matrix):
    with pytest.raises(VcmbenchError, match=r"found shape \(3,\)"):
        matrix.with_values(np.zeros(3))
    values = matrix.values.copy()
    values[7] = np.nan
    with pytest.raises(VcmbenchError, match=r"found nan in block \d+ \(sites"):
        matrix.with_values(values)


def test_other_orbital_count_is_named(matrix):
    other_basis = OrbitalBasis("other", {**BASIS.shells, Species(72, False): (0, 1, 2)})
    other = BlockPattern.from_structure(matrix.pattern.structure, other_basis, CUTOFF)
    with pytest.raises(VcmbenchError, match=r"orbitals of site \d+ \(Hf\): found 9, expected 10"):
        matrix.pattern.require_same_sites(other)


@pytest.mark.parametrize("repeats", [(1, 1, 3), (2, 1, 2)])
def test_supercell_has_the_eigenvalues_of_all_folded_wave_vectors(matrix, repeats):
    """Its H(K) holds H(k) at every k = (K + n) / repeats; a wrong image would mix them."""
    supercell = matrix.repeated(repeats)
    structure = supercell.pattern.structure
    expected = BlockPattern.from_structure(structure, BASIS, CUTOFF)
    np.testing.assert_array_equal(supercell.pattern.pair, expected.pair)
    np.testing.assert_array_equal(supercell.pattern.shift, expected.shift)
    folded = np.array([0.21, -0.13, 0.4])
    inside = np.indices(repeats).reshape(3, -1).T
    expected = np.concatenate(
        [np.linalg.eigvalsh(matrix.to_csr((folded + n) / repeats).toarray()) for n in inside]
    )
    found = np.linalg.eigvalsh(supercell.to_csr(folded).toarray())
    np.testing.assert_allclose(found, np.sort(expected), atol=1e-10)
    # Sites are those of the cells, one after the other.
    n_sites = matrix.pattern.structure.n_sites
    moved = structure.positions[n_sites : 2 * n_sites] - matrix.pattern.structure.positions
    np.testing.assert_allclose(moved - matrix.pattern.structure.cell[2], 0, atol=1e-12)
