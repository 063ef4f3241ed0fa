"""Part of a device: some of its blocks, and the sites that they depend on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vcmbench.blocks import BlockPattern
from vcmbench.structure import IntArray, Structure


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
            _selected(pattern.structure, sites),
            pattern.basis,
            number[pattern.pair[blocks]],
            pattern.shift[blocks],
        )
        return cls(part, pattern.entry_index(blocks))


def _selected(structure: Structure, sites: NDArray[np.integer]) -> Structure:
    return replace(
        structure,
        numbers=structure.numbers[sites],
        positions=structure.positions[sites],
        is_ghost=structure.is_ghost[sites],
        region=structure.region[sites],
    )
