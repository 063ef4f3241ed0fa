"""The networks by name, with their settings."""

from __future__ import annotations

from typing import Literal

from vcmbench.basis import OrbitalBasis
from vcmbench.documents import Document
from vcmbench.models.neural.so2_local import So2Local, So2LocalSettings


class So2LocalNetwork(Document):
    """`vcmbench.models.neural.so2_local`."""

    name: Literal["so2-local"]
    settings: So2LocalSettings = So2LocalSettings()

    def make(self, basis: OrbitalBasis) -> So2Local:
        """Network with random weights."""
        return So2Local(basis, self.settings)
