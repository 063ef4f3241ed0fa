"""Part of a device: some of its blocks, and the sites that they depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcmbench.blocks import BlockPattern
from vcmbench.structure import IntArray


@dataclass(frozen=True)
class Excerpt:
    """Blocks of a device on a structure that holds only the sites around them.

    Parameters
    ----------
    pattern : BlockPattern
        The blocks; its structure is the excerpt, in the cell of the device.
    entries : (n_entries,) int
        Where its entries stand in the device.
    """

    pattern: BlockPattern
    entries: IntArray

    @classmethod
    def of(
        cls, pattern: BlockPattern, blocks: NDArray[np.integer], sites: NDArray[np.integer]
    ) -> Excerpt:
        """Take blocks (ascending) and sites (ascending, the blocks' own included) of a device."""
        number = np.full(pattern.structure.n_sites, -1)
        number[sites] = np.arange(len(sites))
        part = BlockPattern(
            pattern.structure.permuted(sites),
            pattern.basis,
            number[pattern.pair[blocks]],
            pattern.shift[blocks],
        )
        return cls(part, pattern.entry_index(blocks))
