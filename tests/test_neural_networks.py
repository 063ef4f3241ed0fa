"""Networks: exactly equivariant, Hermitian, local and continuous, however the work is cut."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from model_toys import BASIS, HF, O, make_structure, orthogonal  # noqa: E402
from neural_toys import SMALL_NETWORKS, make_network, network_part  # noqa: E402

from vcmbench.blocks import BlockPattern  # noqa: E402
from vcmbench.errors import VcmbenchError  # noqa: E402
from vcmbench.harmonics import rotate_matrix  # noqa: E402
from vcmbench.models.neural.graph import structure_graph  # noqa: E402
from vcmbench.structure import Structure  # noqa: E402

STRUCTURE = make_structure()


@pytest.fixture(scope="module", params=list(SMALL_NETWORKS))
def network(request):
    if request.param != "so2-local":
        pytest.importorskip("e3nn")
    if request.param == "mace":
        pytest.importorskip("mace")
    return make_network(request.param)


@pytest.fixture(scope="module")
def matrix(network):
    return network_part(network, STRUCTURE)


def relative(found, expected) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_every_kind_of_block_is_predicted(matrix):
    """Nothing below would show in blocks that vanish."""
    for slab in matrix.pattern.slabs:
        assert np.abs(matrix.slab(slab)).max() > 1e-3


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("proper", [True, False])
def test_equivariant(network, matrix, seed, proper):
    rotation = orthogonal(seed, proper=proper)
    found = network_part(network, STRUCTURE.transformed(rotation))
    expected = rotate_matrix(matrix, rotation)
    assert relative(found.align(expected.pattern).values, expected.values) < 1e-8


def test_translation_changes_nothing(network, matrix):
    found = network_part(network, STRUCTURE.moved(STRUCTURE.positions + np.array([0.3, -1.7, 2.2])))
    assert relative(found.values, matrix.values) < 1e-8


def test_permutation_of_sites_permutes_orbitals(network, matrix):
    order = np.random.default_rng(3).permutation(STRUCTURE.n_sites)
    found = network_part(network, STRUCTURE.permuted(order))
    offset = matrix.pattern.orbital_offset
    orbitals = np.concatenate([np.arange(offset[s], offset[s + 1]) for s in order])
    k = (0.1, 0.2, 0.3)
    expected = matrix.to_csr(k).toarray()[np.ix_(orbitals, orbitals)]
    assert relative(found.to_csr(k).toarray(), expected) < 1e-8


def test_choice_of_the_cell_changes_nothing(network, matrix):
    """Positions in other images, and a cell of twice the height."""
    rng = np.random.default_rng(5)
    moved = STRUCTURE.moved(
        STRUCTURE.positions + rng.integers(-2, 3, (STRUCTURE.n_sites, 3)) @ STRUCTURE.cell
    )
    twice = Structure.create(
        np.tile(STRUCTURE.numbers, 2),
        np.concatenate([STRUCTURE.positions, STRUCTURE.positions + STRUCTURE.cell[2]]),
        STRUCTURE.cell * [[1], [1], [2]],
        is_ghost=np.tile(STRUCTURE.is_ghost, 2),
    )
    gamma, edge = (np.linalg.eigvalsh(matrix.to_csr(k).toarray()) for k in ((0, 0, 0), (0, 0, 0.5)))
    found = np.linalg.eigvalsh(network_part(network, moved).to_csr().toarray())
    np.testing.assert_allclose(found, gamma, atol=1e-9)
    found = np.linalg.eigvalsh(network_part(network, twice).to_csr().toarray())
    np.testing.assert_allclose(found, np.sort([*gamma, *edge]), atol=1e-9)


def test_cutting_the_work_changes_nothing(network, matrix):
    found = network_part(network, STRUCTURE, chunk=7)
    assert relative(found.values, matrix.values) < 1e-12


@pytest.mark.parametrize("cutoff", [3.5, 5.0])
def test_continuous_where_an_atom_crosses_a_cutoff(network, cutoff):
    """Messages end at 3.5 Å, blocks at 5 Å: a step of 1e-4 Å across changes H by as little."""

    def at(distance: float):
        positions = [[0, 0, 0], [2.1, 0, 0], [0, distance, 0.0]]
        cell = np.diag([30.0, 30, 30])
        structure = Structure.create([72, 8, 72], positions, cell)
        h = network_part(network, structure)
        whole = BlockPattern.from_structure(structure, BASIS, 8.0)
        return h.align(whole).values

    steps = [np.abs(at(cutoff + step) - at(cutoff - step)).max() for step in (1e-2, 1e-3, 1e-4)]
    assert steps[2] < 0.15 * steps[1] < 0.15 * 0.15 * steps[0] < 1e-3


def test_strictly_local(network):
    """What lies beyond the reach of both ends of a block does not matter to it."""
    line = [[0.0, 0, 0], [2.0, 0, 0], [4.5, 0, 0], [7.0, 0, 0], [9.5, 0, 0], [12.0, 0, 0]]
    cell = np.diag([60.0, 30, 30])
    first = Structure.create([72, 8, 8, 72, 8, 8], line, cell)
    other = first.moved(np.array(line) + np.array([[0.0, 0, 0]] * 5 + [[0.0, 0.8, 0]]))
    a, b = (network_part(network, s) for s in (first, other))
    near = (a.pattern.pair <= 1).all(axis=1)
    assert network.reach_ang == 7.0
    changed = np.abs(a.values - b.align(a.pattern).values)
    assert changed[a.pattern.entry_mask(near)].max() == 0
    assert changed.max() > 1e-6


def test_short_cell_sends_a_message_from_every_image():
    structure = Structure.create([72], [[0.0, 0, 0]], np.diag([3.0, 20, 20]))
    graph = structure_graph(structure, BASIS, 6.5)
    assert sorted(graph.edge_vector[:, 0].tolist()) == [-6, -3, 3, 6]
    assert set(graph.edge_index.flatten().tolist()) == {0}


def test_unknown_species_is_named(network):
    structure = Structure.create([72, 22], [[0, 0, 0], [2.0, 0, 0]], np.diag([9.0, 9, 9]))
    with pytest.raises(VcmbenchError, match="species: found Ti, expected only O"):
        structure_graph(structure, BASIS, network.message_cutoff_ang)


def test_blocks_of_local_potentials_need_no_other_terms(demo):
    """DFT blocks have no part of unnatural parity: what the heads leave out vanishes."""
    from vcmbench.harmonics import bond_frames, rotate_blocks
    from vcmbench.models.symmetry import BondTensors, SiteTensors

    device = demo.device("device-b")
    for slab in device.pattern.slabs[::3]:
        shells = [device.basis.shells_of(s) for s in (slab.species_i, slab.species_j)]
        onsite = device.pattern.is_onsite[slab.blocks]
        blocks = device.hamiltonian.slab(slab)
        near = ~onsite & (device.pattern.distance[slab.blocks] < 5)
        if onsite.any():
            assert _left_out(blocks[onsite], SiteTensors(shells[0]).by_degree) < 2e-6
        if near.any():
            frames = bond_frames(device.pattern.vector[slab.blocks][near])
            framed = rotate_blocks(blocks[near], *shells, frames.transpose(0, 2, 1))
            assert _left_out(framed, BondTensors(*shells).by_order) < 2e-6


def _left_out(blocks, tensors) -> float:
    """Largest entry (eV) outside the span of orthonormal tensors; H is stored to 1e-6."""
    flat = blocks.reshape(len(blocks), -1)
    rows = np.concatenate([t.reshape(-1, flat.shape[1]) for t in tensors.values()])
    return float(np.abs(flat - flat @ rows.T @ rows).max())


def test_species_have_heads_of_their_own(network):
    assert {O.label, HF.label, "O*"} == set(network.site_heads)
