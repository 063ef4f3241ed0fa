"""Blocks found where a network computes: those of a pattern, in its order."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from model_toys import BASIS  # noqa: E402

from vcmbench.blocks import BlockPattern  # noqa: E402
from vcmbench.errors import VcmbenchError  # noqa: E402
from vcmbench.models.neural.table import BlockTable  # noqa: E402
from vcmbench.structure import Structure  # noqa: E402

HERE = torch.device("cpu")


def assert_same(table, pattern):
    np.testing.assert_array_equal(table.pair.cpu(), pattern.pair)
    np.testing.assert_array_equal(table.shift.cpu(), pattern.shift)
    np.testing.assert_allclose(table.vector.cpu(), pattern.vector, atol=1e-12)
    np.testing.assert_array_equal(table.is_onsite.cpu(), pattern.is_onsite)
    assert table.slabs == pattern.slabs
    assert table.n_entries == pattern.n_entries


@pytest.mark.parametrize("cutoff", [4.0, 8.0, 12.0])
def test_blocks_are_those_of_the_pattern(demo, cutoff):
    device = demo.device("device-b")
    table = BlockTable.within(device.structure, device.basis, cutoff, HERE)
    pattern = BlockPattern.from_structure(device.structure, device.basis, cutoff)
    assert_same(table, pattern)
    assert_same(BlockTable.of(pattern, HERE), pattern)


def test_several_images_of_a_site(demo):
    """In a cell shorter than the cutoff a site meets itself, once in half of the directions."""
    lead = demo.lead("lead-tin")
    table = BlockTable.within(lead.structure, lead.basis, 12.0, HERE)
    pattern = BlockPattern.from_structure(lead.structure, lead.basis, 12.0)
    assert (pattern.pair[:, 0] == pattern.pair[:, 1]).sum() > len(lead.structure.positions)
    assert_same(table, pattern)


def test_lone_sites_have_their_own_blocks_only():
    far = Structure.create([8, 72], [[0, 0, 0], [9, 0, 0]], np.eye(3) * 30, pbc=[False] * 3)
    table = BlockTable.within(far, BASIS, 5.0, HERE)
    assert table.is_onsite.tolist() == [True, True]
    assert table.distance.tolist() == [0, 0]


def test_shifts_that_a_pattern_cannot_hold_are_refused():
    """A site 200 cells away from its neighbour."""
    far = Structure.create(
        [8, 8], [[0, 0, 0], [2 + 200 * 4.0, 0, 0]], np.eye(3) * 4.0, pbc=[True] * 3
    )
    with pytest.raises(VcmbenchError, match=r"\|R\| = \d+, expected at most 127"):
        BlockTable.within(far, BASIS, 3.0, HERE)
