"""Two runs of one device: what a shift, a mirror and other lattice labels must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import vcmbench
from vcmbench.errors import VcmbenchError
from vcmbench.harmonics import rotate_matrix
from vcmbench.label_noise import SWAP_YZ, label_noise


@pytest.fixture(scope="module")
def lead():
    return vcmbench.load("vcm-demo").lead("lead-tin")


def moved(device, common, site_shift, rotation):
    """The same device: turned, shifted as a whole, every site by lattice vectors of its own."""
    rotation = np.eye(3) if rotation is None else rotation
    structure = device.structure.transformed(rotation)
    structure = structure.moved(structure.positions + common + site_shift @ structure.cell)
    i, j = device.pattern.pair.T
    shift = device.pattern.shift - site_shift[j] + site_shift[i]
    h, s = (
        rotate_matrix(m, rotation).relabelled(structure, shift)
        for m in (device.hamiltonian, device.overlap)
    )
    return replace(device, hamiltonian=h, overlap=replace(s, pattern=h.pattern))


@pytest.mark.parametrize("rotation", [None, SWAP_YZ])
def test_moving_and_turning_is_no_noise(lead, rotation):
    rng = np.random.default_rng(0)
    site_shift = rng.integers(-1, 2, (lead.structure.n_sites, 3))
    variant = moved(lead, np.array([0.3, -0.1, 7.0]), site_shift, rotation)
    noise = label_noise(lead, variant, rotation)
    assert noise.max_mev < 1e-9


def test_the_mirror_has_to_be_told(lead):
    """TiN's cell is symmetric under the mirror, so displace a site first."""
    positions = lead.structure.positions.copy()
    positions[1] += [0.0, 0.05, 0.0]
    structure = lead.structure.moved(positions)
    h = lead.hamiltonian.relabelled(structure, lead.pattern.shift)
    displaced = replace(lead, hamiltonian=h, overlap=replace(lead.overlap, pattern=h.pattern))
    turned = moved(displaced, np.zeros(3), np.zeros((8, 3), int), SWAP_YZ)
    assert label_noise(displaced, turned, SWAP_YZ).max_mev < 1e-9
    with pytest.raises(VcmbenchError, match="displaced against each other"):
        label_noise(displaced, turned)


def test_known_difference(lead):
    """A change of 1 meV of one site's block counts in the means as its share of the entries."""
    onsite = int(np.flatnonzero(lead.pattern.is_onsite)[0])
    start, stop = lead.pattern.offset[[onsite, onsite + 1]]
    values = lead.hamiltonian.values.copy()
    values[start:stop] += 1e-3
    noise = label_noise(lead, replace(lead, hamiltonian=lead.hamiltonian.with_values(values)))
    directed = (lead.pattern.weight * np.diff(lead.pattern.offset)).sum()
    assert noise.max_mev == pytest.approx(1.0)
    assert noise.mae_support_mev == pytest.approx((stop - start) / directed)
    assert noise.log10_t_mean is None


def test_another_cell_is_refused(lead):
    structure = replace(lead.structure, cell=lead.structure.cell + np.diag([0.01, 0, 0]))
    h = lead.hamiltonian.relabelled(structure, lead.pattern.shift)
    variant = replace(lead, hamiltonian=h, overlap=replace(lead.overlap, pattern=h.pattern))
    with pytest.raises(VcmbenchError, match="cell: found"):
        label_noise(lead, variant)


def test_another_device_is_refused(lead):
    device = vcmbench.load("vcm-demo").device("device-a")
    with pytest.raises(VcmbenchError, match="other sites"):
        label_noise(lead, device)
