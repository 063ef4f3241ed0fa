"""ASV: expansion of stored blocks: both directions, Bloch sums, another frame, supercells."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vcmbench.harmonics import rotate_matrix
from vcmbench.release import find_release
from vcmbench.throughput.ladder import Copies, supercell

K = (0.0, 0.25, 0.25)


class Expansion:
    """From half-stored blocks of 294 sites, within 8 Å."""

    def setup(self) -> None:
        self.matrix = find_release("vcm-demo").device("device-b").hamiltonian.truncate(8.0)
        self.directed = self.matrix.directed()
        self.rotation = Rotation.from_euler("xyz", (0.3, 0.5, 0.7)).as_matrix()

    def time_directed(self) -> None:
        found = self.matrix.directed()
        assert found.pattern.n_blocks == self.matrix.pattern.weight.sum()

    def time_bloch_sum(self) -> None:
        self.matrix.to_csr(K)

    def peakmem_bloch_sum(self) -> None:
        found = self.matrix.to_csr(K)
        assert abs(found - found.conj().T).max() < 1e-9

    def time_rotate(self) -> None:
        rotate_matrix(self.directed, self.rotation)

    def time_transpose_twice(self) -> None:
        found = self.directed.reversed().reversed()
        assert np.array_equal(found.values, self.directed.values)


class Supercell:
    """A structure of the throughput ladder."""

    params = (4_704, 49_686)
    param_names = ("sites",)

    def setup(self, n_sites: int) -> None:
        self.structure = find_release("vcm-demo").device("device-b").structure
        self.copies = {4_704: Copies(4, 4), 49_686: Copies(13, 13)}[n_sites]

    def time_supercell(self, n_sites: int) -> None:
        assert supercell(self.structure, self.copies, "device-b").n_sites == n_sites
