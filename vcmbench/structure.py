"""Sites of a device or a bulk cell: positions, cell, ghosts and regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcmbench.basis import Species
from vcmbench.errors import VcmbenchError, bad_input

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Region(IntEnum):
    """Part of a device that a site belongs to; the order is the order along x."""

    NONE = -1
    LEFT_CONTACT = 0
    LEFT_BUFFER = 1
    OXIDE = 2
    EXCHANGE_LAYER = 3
    RIGHT_BUFFER = 4
    RIGHT_CONTACT = 5

    @property
    def label(self) -> str:
        """Lower-case name as written to files and shown in tables."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, eq=False)
class Structure:
    """Sites in a periodic cell.

    Parameters
    ----------
    numbers : (n_sites,) int
        Atomic numbers; a ghost has the number of the element whose basis it carries.
    positions : (n_sites, 3) float
        Cartesian positions in Å. They need not lie inside the cell; block shifts refer to
        them exactly as stored.
    cell : (3, 3) float
        Lattice vectors in Å, one per row.
    pbc : (3,) bool
        Periodic directions.
    is_ghost : (n_sites,) bool
        True for a site with basis functions but no atom (an oxygen vacancy).
    region : (n_sites,) int8
        `Region` of each site, `Region.NONE` throughout for bulk.

    Raises
    ------
    VcmbenchError
        If a shape is wrong, a value not finite or a lattice vector degenerate.
    """

    numbers: NDArray[np.int32]
    positions: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    is_ghost: NDArray[np.bool_]
    region: NDArray[np.int8]

    def __post_init__(self) -> None:
        n_sites = len(np.atleast_1d(self.numbers))
        wanted = {
            "numbers": ((n_sites,), np.int32),
            "positions": ((n_sites, 3), np.float64),
            "cell": ((3, 3), np.float64),
            "pbc": ((3,), np.bool_),
            "is_ghost": ((n_sites,), np.bool_),
            "region": ((n_sites,), np.int8),
        }
        for name, (shape, dtype) in wanted.items():
            value: NDArray[Any] = np.array(getattr(self, name), dtype=dtype)
            if value.shape != shape:
                raise VcmbenchError(
                    f"structure: {name}: found shape {value.shape}, expected {shape}"
                )
            if not np.isfinite(value).all():
                raise VcmbenchError(f"structure: {name}: found NaN or infinite values")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if n_sites == 0:
            raise VcmbenchError("structure: found no sites, expected at least one")
        if abs(np.linalg.det(self.cell)) < 1e-6:
            raise VcmbenchError(f"structure: cell: found volume 0 in {self.cell.tolist()}")
        if self.numbers.min() < 1 or self.numbers.max() > 118:
            raise VcmbenchError("structure: numbers: expected atomic numbers in 1..118")
        known = {int(r) for r in Region}
        if unknown := set(np.unique(self.region).tolist()) - known:
            raise VcmbenchError(
                f"structure: region: found {sorted(unknown)}, expected {sorted(known)}"
            )

    @classmethod
    def create(
        cls,
        numbers: object,
        positions: object,
        cell: object,
        *,
        pbc: object = (True, True, True),
        is_ghost: object = None,
        region: object = None,
    ) -> Structure:
        """Make a structure from array-likes; no ghosts and no regions unless given."""
        n_sites = len(np.atleast_1d(np.asarray(numbers)))
        return cls(
            numbers=np.asarray(numbers),
            positions=np.asarray(positions),
            cell=np.asarray(cell),
            pbc=np.asarray(pbc),
            is_ghost=np.zeros(n_sites, bool) if is_ghost is None else np.asarray(is_ghost),
            region=np.full(n_sites, Region.NONE) if region is None else np.asarray(region),
        )

    @property
    def n_sites(self) -> int:
        """Number of sites, ghosts included."""
        return len(self.numbers)

    @property
    def n_ghosts(self) -> int:
        """Number of ghost sites (vacancies)."""
        return int(self.is_ghost.sum())

    @cached_property
    def species_list(self) -> list[Species]:
        """Species that occur, in canonical order."""
        pairs = np.unique(np.stack([self.numbers, self.is_ghost], axis=1), axis=0)
        return [Species(int(number), bool(ghost)) for number, ghost in pairs]

    @cached_property
    def species_index(self) -> IntArray:
        """(n_sites,) index of each site's species in `species_list`."""
        key = 2 * self.numbers.astype(np.int64) + self.is_ghost
        return np.searchsorted([2 * s.number + s.is_ghost for s in self.species_list], key)

    def species_in(self, species: Sequence[Species]) -> IntArray:
        """(n_sites,) index of each site's species in `species`, which holds all of them."""
        kind = np.array([species.index(s) for s in self.species_list])
        return kind[self.species_index]

    def in_region(self, *regions: Region) -> NDArray[np.bool_]:
        """(n_sites,) mask of the sites in any of `regions`."""
        return np.isin(self.region, [int(r) for r in regions])

    def moved(self, positions: FloatArray) -> Structure:
        """Return the same sites at other positions (Å)."""
        return replace(self, positions=positions)

    def permuted(self, order: NDArray[np.integer]) -> Structure:
        """Return sites in another order, or some of them: site a of the result is ``order[a]``."""
        return replace(
            self,
            numbers=self.numbers[order],
            positions=self.positions[order],
            is_ghost=self.is_ghost[order],
            region=self.region[order],
        )

    def transformed(self, rotation: FloatArray) -> Structure:
        """Return the structure with positions and cell transformed by ``x -> rotation @ x``."""
        return replace(self, positions=self.positions @ rotation.T, cell=self.cell @ rotation.T)


def transport_period(structure: Structure, source: str) -> float:
    """Length of the cell along the transport axis x.

    Parameters
    ----------
    structure : Structure
        A device.
    source : str
        Its name, for errors.

    Returns
    -------
    float
        Å.

    Raises
    ------
    VcmbenchError
        If x is not periodic or the other lattice vectors are not across it.
    """
    if not structure.pbc[0] or np.abs(structure.cell[1:, 0]).max() > 1e-9:
        raise bad_input(
            source,
            "cell",
            found=structure.cell.round(4).tolist(),
            expected="periodic along x, the other lattice vectors across x",
        )
    return float(structure.cell[0, 0])
