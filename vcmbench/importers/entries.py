"""Coordinate lists of a lattice operator, as DFT codes print them, and the blocks they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import MAX_SHIFT, BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.structure import FloatArray, IntArray, Structure

_BASE = 4 * MAX_SHIFT + 4
_ORIGIN = _BASE**3 // 2
"""Packed shifts lie in [-_ORIGIN, _ORIGIN)."""


@dataclass(frozen=True, eq=False)
class Entries:
    """Scalar entries M[row, column](R) of an operator.

    Parameters
    ----------
    source : str
        File or folder, for messages.
    row, column : (n,) int32
        Orbitals, from 0, in the order of the sites.
    value : (n,) float64
        Values.
    image : (n,) int32
        Row of `images` that holds R.
    images : (n_images, 3) int
        Lattice shifts as the code counts them.
    upper_triangle : bool
        Whether only row <= column is listed, in every image: the other half of M(R) is M(-R)ᵀ.
    """

    source: str
    row: NDArray[np.int32]
    column: NDArray[np.int32]
    value: FloatArray
    image: NDArray[np.int32]
    images: NDArray[np.int64]
    upper_triangle: bool

    def scaled(self, factor: float) -> Entries:
        """Return the entries times `factor`."""
        return replace(self, value=self.value * factor)


class Assembled(NamedTuple):
    """A block matrix and what assembling it showed.

    Attributes
    ----------
    matrix : BlockMatrix
        Half-stored operator with every block that has an entry.
    residual : float
        max |M(R) - M(-R)ᵀ| over the entries that are listed, or should be, in both directions.
    """

    matrix: BlockMatrix
    residual: float


ShiftRule = Callable[[IntArray, IntArray, NDArray[np.int32]], IntArray]
"""(site i, site j, image) of entries -> packed shift R of j relative to the stored positions."""


def labelled_shifts(images: NDArray[np.integer], site_shift: NDArray[np.integer]) -> ShiftRule:
    """Rule for codes that label images: R = image - n_j + n_i.

    Parameters
    ----------
    images : (n_images, 3) int
        Shifts as the code counts them, relative to the positions that it uses inside.
    site_shift : (n_sites, 3) int
        n: the code's positions are the stored ones minus n·cell.
    """
    packed_image, packed_site = _pack(images), _pack(site_shift)
    return lambda i, j, image: packed_image[image] - packed_site[j] + packed_site[i]


def nearest_shifts(structure: Structure) -> ShiftRule:
    """Rule for folded matrices: every entry belongs to the nearest image of the pair."""

    def rule(i: IntArray, j: IntArray, _image: NDArray[np.int32]) -> IntArray:
        # Pairs at equal distance from two images must be decided alike in both directions.
        turned = i > j
        key = np.where(turned, j, i) * structure.n_sites + np.where(turned, i, j)
        pairs, inverse = np.unique(key, return_inverse=True)
        first, second = np.divmod(pairs, structure.n_sites)
        packed = _pack(nearest_image(structure, first, second))[inverse]
        return np.where(turned, -packed, packed)

    return rule


def nearest_image(structure: Structure, first: IntArray, second: IntArray) -> IntArray:
    """(n, 3) shifts R that bring site `second` closest to site `first`."""
    vector = structure.positions[second] - structure.positions[first]
    inverse_cell = np.linalg.inv(structure.cell)
    start = -np.round(vector @ inverse_cell).astype(np.int64) * structure.pbc
    steps = [np.arange(-1, 2) if periodic else np.zeros(1, int) for periodic in structure.pbc]
    near = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    # Zero first, so that it wins ties.
    near = near[np.argsort(np.abs(near).sum(axis=1), kind="stable")]
    best, best_square = start, np.full(len(vector), np.inf)
    for step in near:
        candidate = start + step
        square = ((vector + candidate @ structure.cell) ** 2).sum(axis=1)
        better = square < best_square - 1e-9
        best = np.where(better[:, None], candidate, best)
        best_square = np.where(better, square, best_square)
    return best


def assemble(
    entries: Entries, structure: Structure, basis: OrbitalBasis, rule: ShiftRule
) -> Assembled:
    """Put entries into canonical blocks.

    Parameters
    ----------
    entries : Entries
        What the code printed.
    structure, basis : Structure and OrbitalBasis
        Sites in the order of the orbitals.
    rule : callable
        Lattice shift of each entry: `labelled_shifts` or `nearest_shifts`.

    Raises
    ------
    VcmbenchError
        If an orbital does not exist, a shift is out of range, a value is not finite or an entry
        occurs more often than the listing allows.
    """
    sites = BlockPattern(structure, basis, np.empty((0, 2), np.int32), np.empty((0, 3), np.int32))
    _check(entries, sites.n_orbitals)
    directed = _canonical_direction(entries, structure, sites, rule)
    pattern, block = _blocks(structure, basis, directed)
    offset, first = pattern.offset[block], pattern.orbital_offset
    width = pattern.site_orbitals[directed.j]
    row, column = directed.row - first[directed.i], directed.column - first[directed.j]
    position = offset + row * width + column

    values = np.zeros(pattern.n_entries)
    values[position] = entries.value
    onsite = (directed.i == directed.j) & (directed.shift == 0)
    twice = ~onsite
    if entries.upper_triangle:
        twice &= (directed.i == directed.j) & (row == column)
    hits = np.bincount(position, minlength=pattern.n_entries)[position]
    if (hits > 1 + twice).any():
        entry = int((hits > 1 + twice).argmax())
        raise bad_input(
            entries.source,
            _name(entries, entry),
            found=f"{hits[entry]} times for one lattice shift",
            expected=int(1 + twice[entry]),
        )
    # Where both directions are listed the last one stands, and a missing one counts as zero.
    residual = np.abs(values[position] - entries.value).max(initial=0.0)
    residual = np.abs(entries.value[twice & (hits == 1)]).max(initial=residual)
    mirrored = (offset + column * width + row)[onsite]
    if entries.upper_triangle:
        values[mirrored] = entries.value[onsite]
    else:
        residual = np.abs(values[mirrored] - entries.value[onsite]).max(initial=residual)
    return Assembled(BlockMatrix(pattern, values), float(residual))


class _Directed(NamedTuple):
    """Entries turned into the canonical direction of their blocks; `shift` is packed."""

    i: IntArray
    j: IntArray
    shift: IntArray
    row: NDArray[np.int32]
    column: NDArray[np.int32]


def _canonical_direction(
    entries: Entries, structure: Structure, sites: BlockPattern, rule: ShiftRule
) -> _Directed:
    site_of = np.repeat(np.arange(structure.n_sites), sites.site_orbitals)
    i, j = site_of[entries.row], site_of[entries.column]
    shift = rule(i, j, entries.image)
    rank = structure.species_index * structure.n_sites + np.arange(structure.n_sites)
    turned = (rank[i] > rank[j]) | ((i == j) & (shift < 0))
    return _Directed(
        np.where(turned, j, i),
        np.where(turned, i, j),
        np.where(turned, -shift, shift),
        np.where(turned, entries.column, entries.row),
        np.where(turned, entries.row, entries.column),
    )


def _blocks(
    structure: Structure, basis: OrbitalBasis, directed: _Directed
) -> tuple[BlockPattern, IntArray]:
    """Pattern of all blocks that occur, and the block of each entry."""
    n_sites = structure.n_sites
    keys = (directed.i * n_sites + directed.j) * _BASE**3 + directed.shift + _ORIGIN
    unique, inverse = np.unique(keys, return_inverse=True)
    pair, packed = np.divmod(unique, _BASE**3)
    pattern = BlockPattern.from_unsorted(
        structure,
        basis,
        np.stack(np.divmod(pair, n_sites), axis=1),
        _unpack(packed - _ORIGIN),
    )
    i, j = pattern.pair.astype(np.int64).T
    sorted_keys = (i * n_sites + j) * _BASE**3 + _pack(pattern.shift) + _ORIGIN
    return pattern, np.argsort(sorted_keys)[inverse]


def _name(entries: Entries, entry: int) -> str:
    return f"entry ({entries.row[entry] + 1}, {entries.column[entry] + 1})"


def _check(entries: Entries, n_orbitals: int) -> None:
    if not len(entries.value):
        raise bad_input(entries.source, "entries", found="none", expected="a matrix")
    if not np.isfinite(entries.value).all():
        entry = int((~np.isfinite(entries.value)).argmax())
        raise bad_input(
            entries.source,
            _name(entries, entry),
            found=entries.value[entry],
            expected="a finite number",
        )
    low = min(entries.row.min(), entries.column.min()) + 1
    high = max(entries.row.max(), entries.column.max()) + 1
    if low < 1 or high > n_orbitals:
        raise bad_input(
            entries.source,
            "orbital indices",
            found=f"{low}..{high}",
            expected=f"1..{n_orbitals} (the orbitals of the run's sites)",
        )
    if entries.upper_triangle and (entries.row > entries.column).any():
        entry = int((entries.row > entries.column).argmax())
        raise bad_input(
            entries.source,
            "UPPER_TRIANGULAR",
            found=_name(entries, entry),
            expected="row <= column throughout",
        )


def _pack(shift: NDArray[np.integer]) -> IntArray:
    """Integer that is linear in the shift and orders shifts lexicographically."""
    if shift.size and np.abs(shift).max() > MAX_SHIFT // 2:
        raise VcmbenchError(
            f"lattice shifts: found {np.abs(shift).max()}, expected at most {MAX_SHIFT // 2}"
        )
    x, y, z = shift.astype(np.int64).T
    return (x * _BASE + y) * _BASE + z


def _unpack(packed: IntArray) -> IntArray:
    """Inverse of `_pack`."""
    half = _BASE // 2
    shifted = packed + (half * _BASE + half) * _BASE + half
    xy, z = np.divmod(shifted, _BASE)
    x, y = np.divmod(xy, _BASE)
    return np.stack([x, y, z], axis=1) - half
