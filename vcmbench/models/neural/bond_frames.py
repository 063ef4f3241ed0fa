"""Features seen in the frames of bonds, and blocks turned from them into the laboratory."""

from __future__ import annotations

import torch
from torch import Tensor

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.models.neural.frames import Turns, WignerTables, site_places
from vcmbench.models.neural.network import Pair
from vcmbench.models.neural.so2 import FrameLayout


class BondFrames(torch.nn.Module):
    """Frames whose z axis is the bond.

    Parameters
    ----------
    basis : OrbitalBasis
        Species and their shells.
    layout : FrameLayout
        How features stand in a frame.
    """

    def __init__(self, basis: OrbitalBasis, layout: FrameLayout) -> None:
        super().__init__()
        highest = max(l for shells in basis.shells.values() for l in shells)
        self.wigner = WignerTables(max(layout.l_max, highest))
        frame = layout.places(self.wigner.l_max)
        self.register_buffer("frame", frame, persistent=False)
        for species in basis.species:
            places = site_places(basis, species, self.wigner.l_max)
            self.register_buffer(f"site_{species.label}", places, persistent=False)

    def turns(self, vector: Tensor) -> Turns:
        """Rotations of (n, 3) bonds."""
        turns: Turns = self.wigner(vector)
        return turns

    def framed(self, turns: Turns, features: Tensor, *ends: Tensor) -> list[Tensor]:
        """(n, n_components, channels) features of the sites at each end of the bonds."""
        frame = turns.compose(self.frame, features.dtype)
        return [frame @ features.index_select(0, end) for end in ends]

    def turned(self, turns: Turns, pair: Pair, framed: Tensor) -> Tensor:
        """(n, n_i, n_j) blocks of one species pair in the laboratory, from those in the frames."""
        left, right = (self._site(turns, species, framed.dtype) for species in pair)
        return left @ framed @ right.mT

    def _site(self, turns: Turns, species: Species, dtype: torch.dtype) -> Tensor:
        return turns.compose(getattr(self, f"site_{species.label}"), dtype)
