"""Cut a device's orbitals into thin layers along transport, from the sparsity of H and S alone.

With the orbitals in order along x, eliminating the first layers leaves an effective matrix on
the *front*: the orbitals that the eliminated ones couple to. The front is one interaction range
thick, the layers can be much thinner::

      edges[i]  edges[i+1]        reach[i]
    ....+----------+------------------+..........
        | layer i  |  rest of front i |   zeros
        +----------+------------------+
        |          |
        |          |     eliminating layer i costs 8/3 w^3 + 8 w^2 f + 8 w f^2 real flops,
        |          |     w = its width, f = orbitals of front i beyond it

A block-tridiagonal partition is the special case in which each front ends with the next layer.
Thin layers follow the band: a device of 294 sites takes 4.5 Gflop per energy, where recursion
over layers one range thick takes 18. Every coupling lies inside a front by construction: none is
dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from vcmbench.structure import IntArray

LAYER_ORBITALS = 112
"""Aimed-at layer width: thinner layers save flops, wider ones run faster per flop."""


@dataclass(frozen=True)
class Layers:
    """Layers of a device whose orbitals stand in transport order.

    Attributes
    ----------
    edges : (n_layers + 1,) int
        Layer i holds the orbitals edges[i]:edges[i + 1].
    reach : (n_layers,) int
        The layers 0..i couple to no orbital at or beyond reach[i], the left self-energy included.
    back : (n_layers,) int
        The layers i.. couple to no orbital before back[i], the right self-energy included.
    """

    edges: IntArray
    reach: IntArray
    back: IntArray

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.reach)

    @property
    def n_orbitals(self) -> int:
        """Number of orbitals."""
        return int(self.edges[-1])

    def mirrored(self) -> Layers:
        """Return the layers of the device read from right to left."""
        n = self.n_orbitals
        return Layers(n - self.edges[::-1], n - self.back[::-1], n - self.reach[::-1])

    @property
    def flops(self) -> IntArray:
        """(n_layers,) real operations to eliminate each layer in a sweep from the left."""
        w, f = np.diff(self.edges), self.reach - self.edges[1:]
        return 8 * w**3 // 3 + 8 * w**2 * f + 8 * w * f**2

    def window(self, layer: int) -> slice:
        """Layers from `layer` on that separate all layers before it from all after the window."""
        end = self.reach[max(layer - 1, 0)]
        return slice(layer, int(np.searchsorted(self.edges, end)))

    def meeting_layers(self) -> list[int]:
        """First layers of the two neighbouring windows that cost least to meet in.

        No window starts inside the right contact, where its self-energy already acts.
        """
        starts = np.arange(np.searchsorted(self.edges, self.back[-1], side="right"))
        cost = [self._meeting_flops([start]) for start in starts.tolist()]
        best = int(np.argmin(cost))
        return [best - 1, best] if best else [0, 1][: len(starts)]

    def _meeting_flops(self, starts: list[int]) -> int:
        """Real operations of one energy that meets in the windows beginning with these layers."""
        windows = [self.window(start) for start in starts]
        from_left = self.flops[: max(w.start for w in windows)].sum()
        from_right = self.mirrored().flops[: self.n_layers - min(w.stop for w in windows)].sum()
        spans = [int(self.edges[w.stop] - self.edges[w.start]) for w in windows]
        return int(from_left + from_right) + sum(8 * span**3 // 3 for span in spans)

    @property
    def flops_per_energy(self) -> int:
        """Real operations to solve one energy, in both of the windows that check each other."""
        return self._meeting_flops(self.meeting_layers())

    @property
    def matrix_entries(self) -> int:
        """Entries of H, and as many of S, that both sweeps and the windows hold densely."""
        windows = [self.window(start) for start in self.meeting_layers()]
        count = 0
        for layers, n in (
            (self, max(w.start for w in windows)),
            (self.mirrored(), self.n_layers - min(w.stop for w in windows)),
        ):
            count += int((np.diff(layers.edges) * (layers.reach - layers.edges[:-1]))[:n].sum())
        return count + sum(int(self.edges[w.stop] - self.edges[w.start]) ** 2 for w in windows)

    @property
    def largest_front(self) -> int:
        """Orbitals of the largest front."""
        return int((self.reach - self.edges[:-1]).max())


def cut_layers(
    pattern: scipy.sparse.csr_array, n_left: int, n_right: int, width: int = LAYER_ORBITALS
) -> Layers:
    """Cut orbitals in transport order into layers.

    Parameters
    ----------
    pattern : csr_array
        (n, n) matrix, its diagonal full, whose stored entries are all couplings of H and S, or
        the upper triangle of them.
    n_left, n_right : int
        Orbitals of the left contact (the first ones) and of the right contact (the last ones),
        on which the self-energies are full.
    width : int
        Aimed-at number of orbitals per layer.

    Returns
    -------
    Layers
        Contacts and the part between them are cut separately.
    """
    n = pattern.shape[0]
    edges = np.unique(
        np.concatenate(
            [
                np.linspace(start, stop, max(1, round((stop - start) / width)) + 1).astype(int)
                for start, stop in ((0, n_left), (n_left, n - n_right), (n - n_right, n))
            ]
        )
    )
    pattern = pattern.sorted_indices()
    stop = pattern.indices[pattern.indptr[1:] - 1] + 1
    # Written from the last row to the first: the first one that couples to a column stays.
    start = np.empty(n, dtype=pattern.indices.dtype)
    rows = np.repeat(np.arange(n, dtype=start.dtype), np.diff(pattern.indptr))
    start[pattern.indices[::-1]] = rows[::-1]
    stop[:n_left] = np.maximum(stop[:n_left], n_left)
    start[n - n_right :] = np.minimum(start[n - n_right :], n - n_right)
    reach = np.maximum.accumulate(stop)[edges[1:] - 1]
    back = np.minimum.accumulate(start[::-1])[::-1][edges[:-1]]
    # A front holds the next layer whole, coupled or not.
    return Layers(
        edges,
        np.maximum(reach, np.append(edges[2:], n)),
        np.minimum(back, np.append(0, edges[:-2])),
    )
