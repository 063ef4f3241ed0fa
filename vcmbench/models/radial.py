"""Smooth functions of a distance: uniform cubic B-splines that vanish at a cutoff."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vcmbench.structure import FloatArray


@dataclass(frozen=True)
class SplineBasis:
    """Cubic B-splines on equal intervals.

    Every function goes to zero with its first two derivatives at `stop_ang` and is constant
    below `start_ang`.

    Parameters
    ----------
    start_ang, stop_ang : float
        Range covered, Å.
    n_functions : int
        Number of functions, and of intervals.
    """

    start_ang: float
    stop_ang: float
    n_functions: int

    def __call__(self, distance_ang: FloatArray) -> FloatArray:
        """Values of all functions.

        Parameters
        ----------
        distance_ang : (n,) float
            Distances, Å.

        Returns
        -------
        (n, n_functions) float
        """
        interval = (self.stop_ang - self.start_ang) / self.n_functions
        position = np.maximum(distance_ang - self.start_ang, 0) / interval
        # Function k has its maximum at knot k - 1 and its support two intervals either side.
        u = np.abs(position[:, None] - np.arange(-1, self.n_functions - 1))
        inner = (4 - 6 * u**2 + 3 * u**3) / 6
        outer = np.maximum(2 - u, 0) ** 3 / 6
        return np.where(u < 1, inner, outer)


def decay(distance_ang: FloatArray) -> FloatArray:
    """Return the common decay of valence Hamiltonians with distance, one at 2 Å.

    Dividing by it makes the blocks at 2 Å and those at 12 Å, seven orders of magnitude smaller,
    weigh alike in a fit. The constants follow the mean |H| of TiN/HfO2/Ti devices in a
    short-range MOLOPT basis; no accuracy hangs on them.

    Parameters
    ----------
    distance_ang : (n,) float
        Distances, Å.

    Returns
    -------
    (n,) float
    """
    return np.exp(-0.5 * (distance_ang - 2) - 0.08 * (distance_ang**2 - 4))
