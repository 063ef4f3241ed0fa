"""Slater–Koster in torch: the blocks of the closed form, entry by entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from neural_toys import make_network  # noqa: E402

from vcmbench.blocks import BlockPattern  # noqa: E402
from vcmbench.models import load_model  # noqa: E402
from vcmbench.models.neural.assembly import predicted_values  # noqa: E402
from vcmbench.models.neural.clock import StageClock  # noqa: E402
from vcmbench.models.neural.model import ResidualModel  # noqa: E402
from vcmbench.models.neural.slater_koster import SlaterKosterBlocks  # noqa: E402
from vcmbench.models.neural.table import BlockTable  # noqa: E402
from vcmbench.scores import timing  # noqa: E402


@pytest.fixture(scope="module")
def fitted():
    return load_model("slater-koster").model


def predicted(maker, pattern):
    here, structure = torch.device("cpu"), pattern.structure
    neighbours = BlockTable.within(structure, maker.basis, maker.message_cutoff_ang, here)
    table = BlockTable.of(pattern, here)
    with torch.inference_mode():
        found = predicted_values((maker,), table, neighbours, structure, StageClock(here))
    return found.numpy()


def in_torch(model, pattern):
    return predicted(SlaterKosterBlocks(model), pattern)


@pytest.mark.parametrize("cutoff", [7.0, 12.0])
def test_blocks_are_those_of_the_closed_form(demo, fitted, cutoff):
    """Below and beyond the 9 Å up to which the neighbours matter to a bond."""
    structure = demo.device("device-b").structure
    pattern = BlockPattern.from_structure(structure, fitted.basis, cutoff)
    expected = fitted.predict_blocks(pattern).values
    np.testing.assert_allclose(in_torch(fitted, pattern), expected, rtol=1e-10, atol=1e-12)


def test_pairs_that_were_never_seen_are_zero(demo, fitted):
    structure = demo.device("device-b").structure
    absent = max(fitted.bonds)
    model = replace(fitted, bonds={p: b for p, b in fitted.bonds.items() if p != absent})
    pattern = BlockPattern.from_structure(structure, fitted.basis, 6.0)
    found = in_torch(model, pattern)
    for slab in pattern.slabs:
        bonds = ~pattern.is_onsite[slab.blocks]
        blocks = found[slab.entries].reshape(slab.n_blocks, -1)[bonds]
        if len(blocks):
            vanish = np.abs(blocks).max() == 0
            assert vanish == ((slab.species_i, slab.species_j) == absent)


def test_a_residual_model_adds_both_and_times_its_stages(demo, fitted):
    device = demo.device("device-b")
    network = make_network(basis=device.basis)
    model = ResidualModel(fitted, network)
    pattern = BlockPattern.from_structure(device.structure, device.basis, 6.0)
    whole = model.predict_within(device.structure, 6.0)
    np.testing.assert_array_equal(whole.pattern.pair, pattern.pair)
    added = predicted(network, pattern)
    np.testing.assert_allclose(whole.values - added, in_torch(fitted, pattern), atol=1e-10)
    near = pattern.entry_mask(pattern.distance < network.block_cutoff_ang)
    assert np.abs(added[near]).max() > 1e-3
    assert np.abs(added[~near]).max() == 0
    stages = model.stage_seconds()
    assert set(stages) == {"neighbour list", "features", "blocks", "transfer"}
    assert min(stages.values()) > 0


@pytest.mark.parametrize("cutoff", [4.0, 8.0])
def test_what_is_delivered_is_the_prediction_in_float32(demo, fitted, cutoff):
    """4 Å: less than the range of the messages."""
    device = demo.device("device-b")
    model = ResidualModel(fitted, make_network(basis=device.basis).to(torch.float32))
    delivered = timing.deliver(model, device.structure, cutoff)
    expected = model.predict_within(device.structure, cutoff)
    assert delivered.values.dtype == np.float32
    found = delivered.matrix(device.structure, device.basis)
    np.testing.assert_array_equal(found.pattern.pair, expected.pattern.pair)
    scale = np.abs(expected.values).max()
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6 * scale)
    assert min(model.stage_seconds().values()) > 0
