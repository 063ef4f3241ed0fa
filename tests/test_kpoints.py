"""Monkhorst–Pack meshes against ASE's."""

from __future__ import annotations

import numpy as np
import pytest
from ase.dft.kpoints import monkhorst_pack as ase_monkhorst_pack

from vcmbench.kpoints import monkhorst_pack


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 2, 3), (6, 4, 4)])
def test_reduced_mesh_averages_like_the_full_one(mesh):
    """Any even function of k has the same mean over both."""

    def even(k):
        return np.cos(2 * np.pi * k @ [1, 2, 3]) + np.cos(2 * np.pi * k @ [0, 1, -1])

    kpoints, weights = monkhorst_pack(mesh)
    full = ase_monkhorst_pack(mesh)
    assert weights.sum() == pytest.approx(1)
    assert len(kpoints) <= (len(full) + 2) // 2
    assert weights @ even(kpoints) == pytest.approx(even(full).mean(), abs=1e-12)


def test_cross_section_of_two_cells():
    kpoints, weights = monkhorst_pack((1, 2, 2))
    np.testing.assert_allclose(kpoints, [[0, 0.25, -0.25], [0, 0.25, 0.25]])
    np.testing.assert_allclose(weights, [0.5, 0.5])
