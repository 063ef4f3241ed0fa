"""The Slater–Koster model: symmetry, continuity, recovery of known Hamiltonians, files."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from model_toys import BASIS, CUTOFF, GHOST, HF, SMALL, O, make_structure, noise, orthogonal

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.harmonics import rotate_matrix
from vcmbench.models import slater_koster
from vcmbench.models.radial import decay
from vcmbench.models.slater_koster import Settings, SlaterKoster
from vcmbench.models.slater_koster_fit import fit_slater_koster
from vcmbench.models.symmetry import BondTensors
from vcmbench.models.weights import read_weights, write_weights
from vcmbench.structure import FloatArray, Structure

K = (0.13, -0.21, 0.34)
PENALTIES = [name for name in Settings.model_fields if name.endswith(("penalty", "roughness"))]
TIGHT = dict.fromkeys(PENALTIES, 1e-11)


@pytest.fixture(scope="module")
def model() -> SlaterKoster:
    return fit_slater_koster([noise(make_structure())], SMALL)


def relative(found: FloatArray, expected: FloatArray) -> float:
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("proper", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_equivariant(model, seed, proper):
    structure, rotation = make_structure(seed + 10), orthogonal(seed, proper=proper)
    expected = rotate_matrix(model.predict(structure), rotation)
    found = model.predict(structure.transformed(rotation))
    assert relative(found.align(expected.pattern).values, expected.values) < 1e-10


def test_permutation_of_sites_permutes_orbitals(model):
    """Half-stored blocks change direction with the order of their sites: H must not notice."""
    structure = make_structure(11)
    order = np.random.default_rng(0).permutation(structure.n_sites)
    matrix, permuted = model.predict(structure), model.predict(structure.permuted(order))
    offset = matrix.pattern.orbital_offset
    orbitals = np.concatenate([np.arange(offset[s], offset[s + 1]) for s in order])
    expected = matrix.to_csr(K).toarray()[np.ix_(orbitals, orbitals)]
    assert relative(permuted.to_csr(K).toarray(), expected) < 1e-10


def test_integrals_do_not_depend_on_the_end_they_are_seen_from(model):
    """To the last bit: V and W between sites of one species are their own mirror images."""
    tensors = BondTensors(BASIS.shells_of(HF), BASIS.shells_of(HF))
    coefficients = model.bonds[HF, HF]
    for order, weights in coefficients.response.items():
        channel, sign = tensors.mirrored(order)
        ends = weights.reshape(SMALL.n_response, 2, SMALL.degree - order + 1, -1, len(channel))
        parity = (-1.0) ** np.arange(order, SMALL.degree + 1)[:, None, None]
        np.testing.assert_array_equal(ends[:, ::-1] * parity, (sign * ends)[..., channel])
    channel, sign = tensors.mirrored(0)
    two_centre = coefficients.two_centre
    np.testing.assert_array_equal(two_centre, (sign * two_centre)[:, channel])
    assert np.abs(two_centre).min(axis=0).max() > 0


def test_positions_in_other_images_give_the_same_operator(model):
    structure = make_structure(12)
    moves = np.random.default_rng(1).integers(-2, 3, (structure.n_sites, 3))
    matrix = model.predict(structure)
    moved = model.predict(structure.moved(structure.positions + moves @ structure.cell + 0.7))
    phase = np.exp(2j * np.pi * np.repeat(moves @ K, matrix.pattern.site_orbitals))
    # The vector stays, so the shift changes by the move of the first site less the second's.
    expected = phase[:, None] * matrix.to_csr(K).toarray() * phase.conj()
    assert relative(moved.to_csr(K).toarray(), expected) < 1e-10


def test_hermitian(model):
    predicted = model.predict(make_structure(13))
    matrix = predicted.to_csr(K).toarray()
    np.testing.assert_allclose(matrix, matrix.conj().T, atol=1e-15)
    for slab in predicted.pattern.slabs:
        onsite = predicted.slab(slab)[predicted.pattern.is_onsite[slab.blocks]]
        if slab.species_i == slab.species_j:
            np.testing.assert_array_equal(onsite, onsite.transpose(0, 2, 1))


@pytest.mark.parametrize("cutoff", ["cutoff_ang", "response_cutoff_ang", "neighbour_cutoff_ang"])
def test_continuous_where_an_atom_crosses_a_cutoff(model, cutoff):
    """A tenth of the step changes H by a tenth: a jump would stay as it is."""
    radius = getattr(SMALL, cutoff)
    along = np.array([0.8, 0.56, 0.2])
    along /= np.linalg.norm(along)

    def at(distance: float) -> FloatArray:
        positions = np.array([[0, 0, 0], distance * along, [0, 2.2, 0], [0, 0, 2.1]])
        structure = Structure.create([72, 72, 8, 8], positions, 40 * np.eye(3))
        return model.predict(structure).to_csr().toarray()

    def change(step: float) -> float:
        return np.abs(at(radius + step) - at(radius - step)).max()

    assert change(1e-5) < 0.15 * change(1e-4) < 0.03 * change(1e-3)
    assert change(0.5) > 1e-4


STRENGTH = {
    **{"sss": -1.4, "sps": 1.8, "sds": -0.9, "pps": 2.2, "ppp": -0.6},
    **{"pds": -1.1, "pdp": 0.5, "dds": -1.3, "ddp": 0.8, "ddd": -0.2},
}
SHELLS = {4: ((0, "s"), (1, "p")), 10: ((0, "s"), (1, "s"), (2, "p"), (5, "d"))}


def two_centre(structure: Structure) -> BlockMatrix:
    """H of Slater and Koster's Table I, written out for s, p and d; levels on site."""
    pattern = BlockPattern.from_structure(structure, BASIS, CUTOFF)
    matrix = BlockMatrix.zeros(pattern)
    for slab in pattern.slabs:
        blocks, vectors = matrix.slab(slab), pattern.vector[slab.blocks]
        onsite = pattern.is_onsite[slab.blocks]
        if onsite.any():
            blocks[onsite] = np.diag([-1.5] + (slab.n_i - 1) * [0.8])
        # Splines that the model can represent, another mixture for each species pair.
        splines = (
            SMALL.two_centre(pattern.distance[slab.blocks])
            * decay(pattern.distance[slab.blocks])[:, None]
        )
        mixture = np.cos(np.arange(splines.shape[1]) + slab.n_i + 2 * slab.species_i.is_ghost)
        for a, first in SHELLS[slab.n_i]:
            for b, second in SHELLS[slab.n_j]:
                part = (
                    table(first, second, vectors[~onsite])
                    * (splines @ mixture)[~onsite, None, None]
                )
                rows, columns = part.shape[1:]
                blocks[~onsite, a : a + rows, b : b + columns] = part
    return matrix


def table(first: str, second: str, vectors: FloatArray) -> FloatArray:
    """(n, rows, columns) shell pairs of bonds with the integrals `STRENGTH`."""
    if "spd".index(first) > "spd".index(second):
        return table(second, first, -vectors).transpose(0, 2, 1)
    l, m, n = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    c, zero = np.sqrt(3), 0 * l
    s, p = np.ones((len(l), 1)), np.stack([m, n, l], axis=1)
    d = np.stack(
        [c * l * m, c * m * n, (3 * n**2 - 1) / 2, c * l * n, c / 2 * (l**2 - m**2)], axis=1
    )
    # Gradients of the d harmonics by (y, z, x), over the root of 3, without their radial part:
    # the pi components, which are perpendicular to the bond.
    gradient = [
        [l, zero, m],
        [n, m, zero],
        [-m / c, 2 * n / c, -l / c],
        [zero, l, n],
        [-m, zero, l],
    ]
    pi = np.moveaxis(np.array(gradient), 2, 0) - 2 / c * d[:, :, None] * p[:, None]
    harmonics = {"s": s, "p": p, "d": d}
    sigma = np.einsum("na,nb->nab", harmonics[first], harmonics[second])
    strength = [STRENGTH.get(first + second + bond, 0.0) for bond in "spd"]
    result = strength[0] * sigma
    if first + second == "pp":
        result += strength[1] * (np.eye(3) - sigma)
    elif first + second == "pd":
        result += strength[1] * pi.transpose(0, 2, 1)
    elif first + second == "dd":
        square = pi @ pi.transpose(0, 2, 1)
        result += strength[1] * square + strength[2] * (np.eye(5) - sigma - square)
    return result


def test_table_written_out_has_the_entries_of_the_printed_one():
    """The oracle itself, against entries copied from Table I of Phys. Rev. 94, 1498."""
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    l, m, n = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    sps, pps, ppp, pds, pdp = (STRENGTH[name] for name in ("sps", "pps", "ppp", "pds", "pdp"))
    dds, ddp, ddd = (STRENGTH[name] for name in ("dds", "ddp", "ddd"))
    c = np.sqrt(3)
    y, z, x = range(3)
    xy, yz, z2 = range(3)
    printed = {
        ("s", "p", 0, x): l * sps,
        ("p", "p", x, x): l**2 * pps + (1 - l**2) * ppp,
        ("p", "p", y, x): l * m * (pps - ppp),
        ("p", "d", x, xy): c * l**2 * m * pds + m * (1 - 2 * l**2) * pdp,
        ("p", "d", x, yz): c * l * m * n * pds - 2 * l * m * n * pdp,
        ("p", "d", z, z2): n * (n**2 - (l**2 + m**2) / 2) * pds + c * n * (l**2 + m**2) * pdp,
        ("d", "d", xy, xy): 3 * l**2 * m**2 * dds
        + (l**2 + m**2 - 4 * l**2 * m**2) * ddp
        + (n**2 + l**2 * m**2) * ddd,
        ("d", "d", xy, yz): 3 * l * m**2 * n * dds
        + l * n * (1 - 4 * m**2) * ddp
        + l * n * (m**2 - 1) * ddd,
    }
    for (first, second, row, column), expected in printed.items():
        found = table(first, second, vectors)[:, row, column]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_recovers_slater_and_kosters_table():
    """Fitted on some structures, it predicts the two-centre H of another one exactly."""
    settings = SMALL.model_copy(update={"degree": 1, **TIGHT})
    training = [two_centre(make_structure(seed, 36)) for seed in range(3)]
    model = fit_slater_koster(training, settings)
    expected = two_centre(make_structure(99))
    found = model.predict(expected.pattern.structure)
    assert relative(found.align(expected.pattern).values, expected.values) < 1e-6
    for pair in model.bonds:
        assert max(np.abs(w).max() for w in model.bonds[pair].response.values()) < 1e-3


def test_bonds_beyond_the_response_are_fitted_too():
    """Dimers longer than the reach of W: what is known of them is their two-centre part."""
    length = np.linspace(SMALL.response_cutoff_ang + 0.05, CUTOFF - 0.05, 40)
    start = np.stack([30.0 * np.arange(len(length)), 0 * length, 0 * length], axis=1)
    direction = np.random.default_rng(3).normal(size=start.shape)
    direction *= (length / np.linalg.norm(direction, axis=1))[:, None]
    positions = np.concatenate([start, start + direction])
    structure = Structure.create(len(positions) * [72], positions, np.diag([1200.0, 30, 30]))
    expected = two_centre(structure)
    model = fit_slater_koster([expected], SMALL.model_copy(update=TIGHT))
    off_site = expected.pattern.entry_mask(~expected.pattern.is_onsite)
    found = model.predict(structure).values
    assert relative(found[off_site], expected.values[off_site]) < 1e-6


def test_recovers_a_model_with_response_to_neighbours(model):
    """Data made by a model with generic coefficients are fitted and predicted exactly."""
    training = [model.predict(make_structure(seed, 36)) for seed in range(20, 25)]
    fitted = fit_slater_koster(training, SMALL.model_copy(update=TIGHT))
    expected = model.predict(make_structure(77))
    found = fitted.predict(expected.pattern.structure)
    assert relative(found.values, expected.values) < 1e-6


def test_one_pass_over_devices_equals_any_order(model):
    first, second = noise(make_structure(1), 2), noise(make_structure(2), 3)
    one = fit_slater_koster([first, second], SMALL).predict(make_structure(3))
    other = fit_slater_koster([second, first], SMALL).predict(make_structure(3))
    assert relative(one.values, other.values) < 1e-8
    alone = fit_slater_koster([first], SMALL).predict(make_structure(3))
    assert relative(alone.values, other.values) > 1e-2


def test_order_of_sites_of_the_training_data_does_not_matter():
    structure = make_structure(4)
    matrix = noise(structure)
    order = np.random.default_rng(2).permutation(structure.n_sites)
    place = np.argsort(order)
    both = matrix.directed()
    directed = BlockPattern.from_unsorted(
        structure.permuted(order),
        BASIS,
        place[both.pattern.pair],
        both.pattern.shift,
        directed=True,
    )
    where = {
        (*p, *s): b
        for b, (p, s) in enumerate(
            zip(place[both.pattern.pair].tolist(), both.pattern.shift.tolist(), strict=True)
        )
    }
    values = []
    for pair, shift in zip(directed.pair.tolist(), directed.shift.tolist(), strict=True):
        block = where[(*pair, *shift)]
        values.append(both.values[both.pattern.offset[block] : both.pattern.offset[block + 1]])
    permuted = BlockMatrix(directed, np.concatenate(values)).symmetrise()[0]
    expected = fit_slater_koster([matrix], SMALL).predict(make_structure(5))
    found = fit_slater_koster([permuted], SMALL).predict(make_structure(5))
    assert relative(found.values, expected.values) < 1e-8


def test_only_near_blocks_on_request(model):
    structure = make_structure(14)
    near, full = model.predict_within(structure, 3.0), model.predict(structure)
    assert near.pattern.distance.max() < 3.0
    assert relative(near.values, full.align(near.pattern).values) < 1e-12


def test_stages_of_the_latest_prediction_are_timed(model):
    start = time.perf_counter()
    model.predict(make_structure(14))
    elapsed = time.perf_counter() - start
    assert 0.5 * elapsed < sum(model.stage_seconds().values()) < elapsed


def test_pair_that_was_never_seen_predicts_zero():
    """Two ghosts far apart in training: their coupling is not known, and nothing is made up."""
    structure = Structure.create(
        [8, 8, 72], [[0, 0, 0], [9, 9, 9], [2, 0, 0]], 18 * np.eye(3), is_ghost=[True, False, False]
    )
    pattern = BlockPattern.from_structure(structure, BASIS, CUTOFF)
    model = fit_slater_koster([BlockMatrix(pattern, np.ones(pattern.n_entries))], SMALL)
    assert set(model.bonds) == {(GHOST, HF)}
    predicted = model.predict(structure.moved([[0, 0, 0], [2, 2, 0], [2, 0, 0]]))
    for slab in predicted.pattern.slabs:
        zero = (slab.species_i, slab.species_j) in {(O, HF), (O, GHOST)}
        assert (np.abs(predicted.slab(slab)).max() == 0) == zero


def test_unknown_species_is_named_with_those_known(model):
    structure = make_structure()
    numbers = structure.numbers.copy()
    numbers[5] = 22
    with pytest.raises(VcmbenchError, match=r"species: found Ti, expected only O, O\*, Hf"):
        model.predict(replace(structure, numbers=numbers))


def test_other_shells_in_another_training_device_are_named():
    first = noise(make_structure())
    basis = OrbitalBasis("other", {**BASIS.shells, Species(72, False): (0, 1, 2)})
    pattern = BlockPattern.from_structure(make_structure(1), basis, CUTOFF)
    with pytest.raises(VcmbenchError, match=r"shells of Hf: found \(0, 1, 2\)"):
        fit_slater_koster([first, BlockMatrix.zeros(pattern)], SMALL)
    with pytest.raises(VcmbenchError, match="no training data"):
        fit_slater_koster([])


def test_saved_and_loaded_it_is_the_same_model(model, tmp_path):
    model.save(tmp_path)
    written = (tmp_path / "weights.safetensors").read_bytes()
    loaded = slater_koster.load(tmp_path)
    structure = make_structure(15)
    np.testing.assert_array_equal(loaded.predict(structure).values, model.predict(structure).values)
    assert loaded.n_parameters == model.n_parameters
    loaded.save(tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == written


def test_damaged_weights_are_named(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(VcmbenchError, match=r"weights\.safetensors: no such file"):
        slater_koster.load(tmp_path)
    model.save(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VcmbenchError, match=r"weights\.safetensors: corrupt or truncated"):
        slater_koster.load(tmp_path)
    model.save(tmp_path)
    _, metadata = read_weights(path, slater_koster.Metadata)
    arrays = {**model.arrays(), "levels/Hf": np.zeros(7)}
    write_weights(path, arrays, metadata)
    with pytest.raises(VcmbenchError, match=r"levels/Hf: found float64 of shape \(7,\), expected"):
        slater_koster.load(tmp_path)
    arrays["levels/Hf"] = np.full(len(model.sites[HF].levels), np.nan)
    write_weights(path, arrays, metadata)
    with pytest.raises(VcmbenchError, match=r"levels/Hf: found NaN or infinity"):
        slater_koster.load(tmp_path)
