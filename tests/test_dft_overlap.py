"""Overlap without a run: CP2K's own S, block for block, and errors that say what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockPattern
from vcmbench.dft.overlap import DATA_VARIABLE, _basis_file, _functions, overlap
from vcmbench.errors import VcmbenchError

pytest.importorskip("pyscf", reason="PySCF is not installed: pip install 'vcmbench[dft]'")


@pytest.fixture
def basis_file():
    try:
        return _basis_file()
    except VcmbenchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def device(demo):
    return demo.device("device-a")


def test_overlap_agrees_with_cp2k(basis_file, device):
    """Every species pair, ghosts included, at all distances."""
    reference = device.overlap
    pattern = reference.pattern
    chosen = np.zeros(pattern.n_blocks, bool)
    generator = np.random.default_rng(0)
    for slab in pattern.slabs:
        blocks = np.arange(slab.blocks.start, slab.blocks.stop)
        chosen[generator.choice(blocks, min(60, len(blocks)), replace=False)] = True
    chosen |= pattern.is_onsite & (generator.random(pattern.n_blocks) < 0.2)
    subset = pattern.subset(chosen)
    assert len(subset.slabs) == len(pattern.slabs) > 10
    found, expected = overlap(subset), reference.align(subset)
    assert np.abs(expected.values).max() == pytest.approx(1.0, abs=1e-7)
    # CP2K leaves out pairs beyond its own radius, whose overlap is below 1e-5.
    absent = np.repeat(
        [
            not expected.values[start:stop].any()
            for start, stop in zip(subset.offset[:-1], subset.offset[1:], strict=True)
        ],
        np.diff(subset.offset),
    )
    np.testing.assert_allclose(found.values[~absent], expected.values[~absent], atol=1e-6)
    np.testing.assert_allclose(found.values[absent], 0, atol=1e-5)


def test_overlap_of_both_directions_is_hermitian(basis_file, device):
    pattern = device.overlap.pattern
    near = pattern.subset(np.flatnonzero(pattern.distance < 3.0)[::20])
    assert 10 < near.n_blocks < 500
    half = overlap(near)
    directed = overlap(half.directed().pattern)
    np.testing.assert_allclose(directed.values, half.directed().values, atol=1e-12)


def test_missing_basis_file_is_named(monkeypatch, tmp_path, device):
    _functions.cache_clear()
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(
        VcmbenchError, match=f"BASIS_MOLOPT: found in none of {tmp_path}: set CP2K_DATA_DIR"
    ):
        overlap(device.overlap.pattern.subset(np.arange(3)))


def test_unknown_basis_set_is_named(monkeypatch, tmp_path, device):
    _functions.cache_clear()
    (tmp_path / "BASIS_MOLOPT").write_text("# nothing\n")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(VcmbenchError, match=r"BASIS_MOLOPT: N SZV-MOLOPT-SR-GTH: found no entry"):
        overlap(device.overlap.pattern.subset(np.arange(3)))


def test_shells_that_are_not_those_of_the_set_are_named(basis_file, device):
    pattern = device.overlap.pattern
    shells = dict.fromkeys(pattern.basis.shells, (1, 0))
    basis = OrbitalBasis("SZV-MOLOPT-SR-GTH", shells)
    wrong = BlockPattern.from_structure(pattern.structure, basis, 0.5)
    with pytest.raises(VcmbenchError, match=r"shells of N: found \(1, 0\), expected \(0, 1\)"):
        overlap(wrong)
