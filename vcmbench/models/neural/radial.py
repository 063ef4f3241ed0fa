"""Functions of distances in torch: splines that vanish at a cutoff, and the blocks' envelope."""

from __future__ import annotations

import torch
from torch import Tensor

SHORTEST_ANG = 1.6
"""Splines are constant below, Å."""


def splines(distance_ang: Tensor, cutoff_ang: float, n_functions: int) -> Tensor:
    """Cubic B-splines, those of `vcmbench.models.radial.SplineBasis`.

    Parameters
    ----------
    distance_ang : (n,) float
        Distances, Å.
    cutoff_ang : float
        Where all functions and their first two derivatives vanish, Å.
    n_functions : int
        Number of functions.

    Returns
    -------
    (n, n_functions) float
    """
    interval = (cutoff_ang - SHORTEST_ANG) / n_functions
    position = torch.clamp(distance_ang - SHORTEST_ANG, min=0) / interval
    knots = torch.arange(-1, n_functions - 1, device=position.device, dtype=position.dtype)
    u = (position[:, None] - knots).abs()
    outer, inner = torch.clamp(2 - u, min=0), torch.clamp(1 - u, min=0)
    return (outer**3 - 4 * inner**3) / 6


def envelope(distance_ang: Tensor, cutoff_ang: float) -> Tensor:
    """Decay of the blocks, and a factor that takes them to zero at the cutoff, twice smooth.

    The decay is `vcmbench.models.radial.decay`, one at 2 Å.
    """
    decay = torch.exp(-0.5 * (distance_ang - 2) - 0.08 * (distance_ang**2 - 4))
    return decay * torch.clamp(1 - (distance_ang / cutoff_ang) ** 2, min=0) ** 3
