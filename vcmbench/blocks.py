"""Block-sparse lattice operators in canonical order (DESIGN.md, conventions: blocks)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from vesin import NeighborList

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.errors import VcmbenchError
from vcmbench.structure import FloatArray, IntArray, Structure

MAX_SHIFT = 127
"""Largest |R| component a block may have: shifts are stored as int8."""


class Slab(NamedTuple):
    """All blocks of one species pair: a contiguous (n_blocks, n_i, n_j) array.

    Attributes
    ----------
    species_i, species_j : Species
        Species of the first and of the second site.
    blocks : slice
        Its blocks in `BlockPattern.pair`.
    n_i, n_j : int
        Orbitals per site.
    entries : slice
        Its entries in `BlockMatrix.values`.
    """

    species_i: Species
    species_j: Species
    blocks: slice
    n_i: int
    n_j: int
    entries: slice

    @property
    def n_blocks(self) -> int:
        """Number of blocks in the slab."""
        return self.blocks.stop - self.blocks.start


class Locations(NamedTuple):
    """Where each block of one pattern stands in another."""

    block: IntArray
    found: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BlockPattern:
    """Which blocks (i, j, R) an operator has, and where their entries lie.

    A half-stored pattern holds each pair once, from the site with the lower (species, index);
    i = j with R = 0 or the lexicographically positive R. A directed pattern holds both
    directions. Either is sorted by species pair, then i, j, R.

    Parameters
    ----------
    structure : Structure
        The sites.
    basis : OrbitalBasis
        Orbitals per species.
    pair : (n_blocks, 2) int32
        Sites i and j.
    shift : (n_blocks, 3) int32
        Lattice shift R of site j relative to the stored positions.
    directed : bool
        Whether both directions of every pair are held.

    Raises
    ------
    VcmbenchError
        If a site does not exist, or blocks repeat, are not sorted or not in canonical direction.
    """

    structure: Structure
    basis: OrbitalBasis
    pair: NDArray[np.int32]
    shift: NDArray[np.int32]
    directed: bool = False

    def __post_init__(self) -> None:
        n_blocks = len(self.pair)
        for name, width in (("pair", 2), ("shift", 3)):
            value = np.ascontiguousarray(getattr(self, name), dtype=np.int32)
            if value.shape != (n_blocks, width):
                raise VcmbenchError(
                    f"blocks: {name}: found shape {value.shape}, expected {(n_blocks, width)}"
                )
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        _check_range(self.pair, self.shift, self.structure.n_sites)
        if not self.directed:
            wrong = ~_is_canonical(self.structure, self.pair, self.shift)
            if wrong.any():
                raise VcmbenchError(
                    f"blocks: {int(wrong.sum())} of {n_blocks} stand in the wrong direction, first "
                    f"{self._name(int(wrong.argmax()))}: expected the lower (species, index) first"
                )
        if n_blocks and not (np.diff(self._sort_key) > 0).all():
            first = int((np.diff(self._sort_key) <= 0).argmax()) + 1
            raise VcmbenchError(
                f"blocks: {self._name(first)} repeats or is out of order: "
                "expected blocks sorted by species pair, then i, j, R"
            )

    @classmethod
    def from_structure(
        cls, structure: Structure, basis: OrbitalBasis, cutoff_ang: float
    ) -> BlockPattern:
        """Half-stored pattern of every pair of sites closer than `cutoff_ang` (Å)."""
        i, j, shift, distance = NeighborList(cutoff=cutoff_ang, full_list=False).compute(
            points=structure.positions,
            box=structure.cell,
            periodic=structure.pbc,
            quantities="ijSd",
        )
        near = distance < cutoff_ang
        sites = np.arange(structure.n_sites)
        pair = np.concatenate(
            [np.stack([sites, sites], 1), np.stack([i, j], 1)[near].astype(np.int64)]
        )
        shift = np.concatenate([np.zeros((structure.n_sites, 3)), shift[near]]).astype(np.int32)
        return cls.from_unsorted(structure, basis, *canonical(structure, pair, shift)[:2])

    @classmethod
    def from_unsorted(
        cls,
        structure: Structure,
        basis: OrbitalBasis,
        pair: NDArray[np.integer],
        shift: NDArray[np.integer],
        *,
        directed: bool = False,
    ) -> BlockPattern:
        """Pattern of the given blocks in any order (but already in their stored direction)."""
        _check_range(pair, shift, structure.n_sites)
        order = np.argsort(_sort_key(structure, pair, shift), kind="stable")
        return cls(
            structure,
            basis,
            pair[order].astype(np.int32),
            shift[order].astype(np.int32),
            directed,
        )

    def _name(self, block: int) -> str:
        i, j = self.pair[block].tolist()
        return f"block {block} (sites {i}, {j}, R = {tuple(self.shift[block].tolist())})"

    @cached_property
    def _sort_key(self) -> IntArray:
        return _sort_key(self.structure, self.pair, self.shift)

    @property
    def n_blocks(self) -> int:
        """Number of stored blocks."""
        return len(self.pair)

    @cached_property
    def site_orbitals(self) -> IntArray:
        """(n_sites,) number of orbitals of each site."""
        per_species = [self.basis.n_orbitals(s) for s in self.structure.species_list]
        return np.array(per_species, dtype=np.int64)[self.structure.species_index]

    @cached_property
    def orbital_offset(self) -> IntArray:
        """(n_sites + 1,) first orbital of each site; the last value is the matrix dimension."""
        return np.concatenate([[0], np.cumsum(self.site_orbitals)])

    @property
    def n_orbitals(self) -> int:
        """Dimension of the matrix."""
        return int(self.orbital_offset[-1])

    @cached_property
    def offset(self) -> IntArray:
        """(n_blocks + 1,) first entry of each block."""
        sizes = self.site_orbitals[self.pair[:, 0]] * self.site_orbitals[self.pair[:, 1]]
        return np.concatenate([[0], np.cumsum(sizes)])

    @property
    def n_entries(self) -> int:
        """Number of stored entries."""
        return int(self.offset[-1])

    @cached_property
    def slabs(self) -> list[Slab]:
        """The blocks of each species pair, in stored order."""
        species = self.structure.species_list
        index = self.structure.species_index[self.pair]
        key = index[:, 0] * len(species) + index[:, 1]
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        stops = np.append(starts, self.n_blocks)[1:]
        slabs = []
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            first, second = (species[s] for s in index[start])
            slabs.append(
                Slab(
                    first,
                    second,
                    slice(start, stop),
                    self.basis.n_orbitals(first),
                    self.basis.n_orbitals(second),
                    slice(int(self.offset[start]), int(self.offset[stop])),
                )
            )
        return slabs

    @cached_property
    def vector(self) -> FloatArray:
        """(n_blocks, 3) r_j + R·cell − r_i in Å."""
        positions = self.structure.positions
        i, j = self.pair.T
        return positions[j] + self.shift @ self.structure.cell - positions[i]

    @cached_property
    def distance(self) -> FloatArray:
        """(n_blocks,) length of `vector` in Å."""
        return np.linalg.norm(self.vector, axis=1)

    @cached_property
    def is_onsite(self) -> NDArray[np.bool_]:
        """(n_blocks,) whether the block couples a site with itself at R = 0."""
        return (self.pair[:, 0] == self.pair[:, 1]) & ~self.shift.any(axis=1)

    @cached_property
    def weight(self) -> IntArray:
        """(n_blocks,) how many directed blocks each stored block stands for (1 or 2)."""
        if self.directed:
            return np.ones(self.n_blocks, dtype=np.int64)
        return np.where(self.is_onsite, 1, 2)

    def locate(self, other: BlockPattern) -> Locations:
        """Find the blocks of `other` in this pattern.

        Returns
        -------
        Locations
            `block` (other.n_blocks,) position in this pattern, valid where `found`.
        """
        self.require_same_sites(other)
        if not self.n_blocks:
            return Locations(np.zeros(other.n_blocks, np.int64), np.zeros(other.n_blocks, bool))
        index = np.searchsorted(self._sort_key, other._sort_key)
        index = np.minimum(index, self.n_blocks - 1)
        return Locations(index, self._sort_key[index] == other._sort_key)

    def require_same_sites(self, other: BlockPattern) -> None:
        """Raise if `other` belongs to other sites or another orbital count."""
        mine, theirs = self.structure, other.structure
        if mine is theirs and self.basis is other.basis:
            return
        if mine.n_sites != theirs.n_sites:
            raise VcmbenchError(
                f"blocks: sites: found {theirs.n_sites}, expected {mine.n_sites} sites"
            )
        if not np.array_equal(mine.species_index, theirs.species_index) or (
            mine.species_list != theirs.species_list
        ):
            raise VcmbenchError("blocks: sites: found other species than those of the reference")
        if not np.array_equal(self.site_orbitals, other.site_orbitals):
            site = int((self.site_orbitals != other.site_orbitals).argmax())
            label = mine.species_list[mine.species_index[site]].label
            raise VcmbenchError(
                f"blocks: orbitals of site {site} ({label}): "
                f"found {other.site_orbitals[site]}, expected {self.site_orbitals[site]}"
            )

    def subset(self, blocks: NDArray[np.bool_] | NDArray[np.integer]) -> BlockPattern:
        """Pattern of the selected blocks; their order is kept."""
        return BlockPattern(
            self.structure, self.basis, self.pair[blocks], self.shift[blocks], self.directed
        )

    def entry_index(self, blocks: NDArray[np.integer]) -> IntArray:
        """Where the entries of some blocks stand, block after block."""
        start = self.offset[blocks]
        return _ranges(start, self.offset[blocks + 1] - start)

    def entry_mask(self, blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n_entries,) mask of the entries of the selected blocks."""
        return np.repeat(blocks, np.diff(self.offset))


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """A lattice operator H_ij(R) on a `BlockPattern`.

    Parameters
    ----------
    pattern : BlockPattern
        Blocks held.
    values : (n_entries,) float64
        Entries of all blocks, row-major within a block, blocks in stored order.

    Raises
    ------
    VcmbenchError
        If the number of entries does not fit or an entry is not finite.
    """

    pattern: BlockPattern
    values: FloatArray

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.shape != (self.pattern.n_entries,):
            raise VcmbenchError(
                f"blocks: values: found shape {values.shape}, "
                f"expected {(self.pattern.n_entries,)} entries for this basis"
            )
        if not np.isfinite(values).all():
            entry = int((~np.isfinite(values)).argmax())
            block = int(np.searchsorted(self.pattern.offset, entry, side="right")) - 1
            raise VcmbenchError(
                f"blocks: values: found {values[entry]} in {self.pattern._name(block)}, "
                "expected finite numbers"
            )
        object.__setattr__(self, "values", values)

    @classmethod
    def zeros(cls, pattern: BlockPattern) -> Self:
        """Operator with all entries zero."""
        return cls(pattern, np.zeros(pattern.n_entries))

    def slab(self, slab: Slab) -> FloatArray:
        """(n_blocks, n_i, n_j) view of the blocks of one species pair."""
        return self.values[slab.entries].reshape(slab.n_blocks, slab.n_i, slab.n_j)

    def with_values(self, values: FloatArray) -> BlockMatrix:
        """Return an operator of the same pattern with other entries."""
        return BlockMatrix(self.pattern, values)

    def _same_pattern(self, other: BlockMatrix) -> FloatArray:
        if other.pattern is not self.pattern:
            located = self.pattern.locate(other.pattern)
            if other.pattern.n_blocks != self.pattern.n_blocks or not located.found.all():
                raise VcmbenchError("blocks: operators have different patterns: align them first")
        return other.values

    def __add__(self, other: BlockMatrix) -> BlockMatrix:
        return self.with_values(self.values + self._same_pattern(other))

    def __sub__(self, other: BlockMatrix) -> BlockMatrix:
        return self.with_values(self.values - self._same_pattern(other))

    def __mul__(self, factor: float) -> BlockMatrix:
        return self.with_values(self.values * factor)

    __rmul__ = __mul__

    def truncate(self, cutoff_ang: float) -> BlockMatrix:
        """Keep the blocks closer than `cutoff_ang` (Å)."""
        return self.select(self.pattern.distance < cutoff_ang)

    def select(self, blocks: NDArray[np.bool_]) -> BlockMatrix:
        """Keep the selected blocks: `blocks` is a (n_blocks,) mask."""
        return BlockMatrix(
            self.pattern.subset(blocks), self.values[self.pattern.entry_mask(blocks)]
        )

    def align(self, pattern: BlockPattern) -> BlockMatrix:
        """Return the same operator on `pattern`: absent blocks become zero, others are dropped."""
        if pattern.directed != self.pattern.directed:
            raise VcmbenchError(
                "blocks: cannot align directed with half-stored blocks: symmetrise first"
            )
        index, found = self.pattern.locate(pattern)
        values = np.zeros(pattern.n_entries)
        sizes = np.diff(pattern.offset)[found]
        values[pattern.entry_mask(found)] = self.values[
            _ranges(self.pattern.offset[index[found]], sizes)
        ]
        return BlockMatrix(pattern, values)

    def replaced(self, other: BlockMatrix, blocks: NDArray[np.bool_]) -> BlockMatrix:
        """Return this operator with the selected blocks taken from `other` (same pattern)."""
        mask = self.pattern.entry_mask(blocks)
        return self.with_values(np.where(mask, self._same_pattern(other), self.values))

    def relabelled(self, structure: Structure, shift: NDArray[np.integer]) -> BlockMatrix:
        """Return the same blocks with other lattice shifts, half stored.

        Parameters
        ----------
        structure : Structure
            The same sites, moved by lattice vectors or in another cell.
        shift : (n_blocks, 3) int
            Shift R of each block relative to the positions of `structure`.
        """
        old = self.pattern
        pattern, values = _half_stored(
            structure,
            old.basis,
            old.pair,
            shift,
            np.diff(old.offset),
            self.values,
            self._transposed(),
        )
        return BlockMatrix(pattern, values)

    def reimaged(self, image: NDArray[np.integer]) -> BlockMatrix:
        """Return the same blocks with every site moved back by lattice vectors, half stored.

        Parameters
        ----------
        image : (n_sites, 3) int
            Lattice vectors to subtract from the position of each site.
        """
        pattern, structure = self.pattern, self.pattern.structure
        shift = pattern.shift + image[pattern.pair[:, 1]] - image[pattern.pair[:, 0]]
        return self.relabelled(structure.moved(structure.positions - image @ structure.cell), shift)

    def repeated(self, repeats: tuple[int, int, int]) -> BlockMatrix:
        """Return the same operator on a supercell (`Structure.repeated`), half stored.

        Parameters
        ----------
        repeats : (3,) int
            Cells along each lattice vector.
        """
        old = self.pattern
        structure = old.structure.repeated(repeats)
        n_cells = int(np.prod(repeats))
        cells = np.indices(repeats).reshape(3, n_cells).T
        shift, inside = np.divmod(cells[:, None] + old.shift, repeats)
        home = np.broadcast_to(np.arange(n_cells)[:, None], (n_cells, old.n_blocks))
        away = np.ravel_multi_index(tuple(np.moveaxis(inside, -1, 0)), repeats)
        pair = np.stack([home, away], axis=-1) * old.structure.n_sites + old.pair
        pattern, values = _half_stored(
            structure,
            old.basis,
            pair.reshape(-1, 2),
            shift.reshape(-1, 3),
            np.tile(np.diff(old.offset), n_cells),
            np.tile(self.values, n_cells),
            np.tile(self._transposed(), n_cells),
        )
        return BlockMatrix(pattern, values)

    def _transposed(self) -> FloatArray:
        """(n_entries,) entries of the transposed blocks, in the order of the blocks."""
        flat = np.empty_like(self.values)
        for slab in self.pattern.slabs:
            flat[slab.entries] = self.slab(slab).transpose(0, 2, 1).ravel()
        return flat

    def reversed(self) -> BlockMatrix:
        """Return the transposed blocks (j, i, −R) as a directed operator."""
        pattern = self.pattern
        order = np.argsort(
            _sort_key(pattern.structure, pattern.pair[:, ::-1], -pattern.shift), kind="stable"
        )
        turned = BlockPattern(
            pattern.structure,
            pattern.basis,
            pattern.pair[order, ::-1],
            -pattern.shift[order],
            directed=True,
        )
        sizes = np.diff(pattern.offset)[order]
        return BlockMatrix(turned, self._transposed()[_ranges(pattern.offset[order], sizes)])

    def directed(self) -> BlockMatrix:
        """Both directions of every block, as a directed operator."""
        if self.pattern.directed:
            return self
        off_site = self.select(~self.pattern.is_onsite)
        return _merge(self, off_site.reversed())

    def symmetrise(self) -> tuple[BlockMatrix, FloatArray]:
        """Hermitian part (H + H†)/2, half stored.

        Returns
        -------
        matrix : BlockMatrix
            Half-stored Hermitian part. A direction that is absent counts as zero.
        residual : (n_entries,) float
            |H − H†| of every entry of `matrix`, in the operator's unit.
        """
        both = self.directed()
        structure, basis = both.pattern.structure, both.pattern.basis
        pair, shift, _ = canonical(structure, both.pattern.pair, both.pattern.shift)
        unique = np.unique(np.concatenate([pair, shift], axis=1), axis=0)
        half = BlockPattern.from_unsorted(structure, basis, unique[:, :2], unique[:, 2:])
        forward_pattern = BlockPattern(structure, basis, half.pair, half.shift, directed=True)
        forward = both.align(forward_pattern).values
        backward = both.reversed().align(forward_pattern).values
        return BlockMatrix(half, 0.5 * (forward + backward)), np.abs(forward - backward)

    def to_csr(self, k: ArrayLike = (0.0, 0.0, 0.0)) -> scipy.sparse.csr_array:
        """Bloch sum H(k) = Σ_R H(R) exp(2πi k·R).

        Parameters
        ----------
        k : (3,) float
            Wave vector in fractional coordinates of the reciprocal cell.

        Returns
        -------
        csr_array
            (n_orbitals, n_orbitals); real where exp(2πi k·R) is for every R, else complex.
        """
        pattern = self.pattern
        wave_vector = np.asarray(k, dtype=np.float64)
        phase = np.exp(2j * np.pi * (pattern.shift @ wave_vector))
        if np.array_equal(2 * wave_vector, np.round(2 * wave_vector)):
            phase = np.sign(phase.real)
        data = self.values * np.repeat(phase, np.diff(pattern.offset))
        rows, columns = self.entry_orbitals()
        if not pattern.directed:
            mirrored = pattern.entry_mask(~pattern.is_onsite)
            rows, columns, data = (
                np.concatenate([rows, columns[mirrored]]),
                np.concatenate([columns, rows[mirrored]]),
                np.concatenate([data, data[mirrored].conj()]),
            )
        shape = (pattern.n_orbitals, pattern.n_orbitals)
        return scipy.sparse.coo_array((data, (rows, columns)), shape=shape).tocsr()

    def entry_orbitals(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(n_entries,) row and column of every entry in the dense matrix."""
        pattern = self.pattern
        rows = np.empty(pattern.n_entries, dtype=np.int32)
        columns = np.empty(pattern.n_entries, dtype=np.int32)
        start = pattern.orbital_offset[pattern.pair].astype(np.int32)
        for slab in pattern.slabs:
            shape = (slab.n_blocks, slab.n_i, slab.n_j)
            first = start[slab.blocks, 0, None, None] + np.arange(slab.n_i, dtype=np.int32)[:, None]
            second = start[slab.blocks, 1, None, None] + np.arange(slab.n_j, dtype=np.int32)
            rows[slab.entries] = np.broadcast_to(first, shape).ravel()
            columns[slab.entries] = np.broadcast_to(second, shape).ravel()
        return rows, columns


def _half_stored(
    structure: Structure,
    basis: OrbitalBasis,
    pair: NDArray[np.integer],
    shift: NDArray[np.integer],
    sizes: IntArray,
    values: FloatArray,
    transposed: FloatArray,
) -> tuple[BlockPattern, FloatArray]:
    """Pattern and entries of blocks that stand in any order and direction.

    `sizes` are the entries of each block; `values` and `transposed` those of all blocks and of
    their transposes, one block after the other.
    """
    pair, shift, turned = canonical(structure, pair, shift)
    order = np.argsort(_sort_key(structure, pair, shift), kind="stable")
    pattern = BlockPattern.from_unsorted(structure, basis, pair, shift)
    values = np.where(np.repeat(turned, sizes), transposed, values)
    starts = np.cumsum(sizes) - sizes
    return pattern, values[_ranges(starts[order], sizes[order])]


def canonical(
    structure: Structure, pair: NDArray[np.integer], shift: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.bool_]]:
    """Turn blocks into their canonical direction.

    Parameters
    ----------
    structure : Structure
        The sites.
    pair, shift : (n_blocks, 2) and (n_blocks, 3) int
        Blocks in any direction.

    Returns
    -------
    pair, shift : arrays like the input
        The canonical block of each.
    turned : (n_blocks,) bool
        Where the direction changed, and the block is to be transposed.
    """
    turned = ~_is_canonical(structure, pair, shift)
    return (
        np.where(turned[:, None], pair[:, ::-1], pair),
        np.where(turned[:, None], -shift, shift),
        turned,
    )


def _is_canonical(
    structure: Structure, pair: NDArray[np.integer], shift: NDArray[np.integer]
) -> NDArray[np.bool_]:
    rank = structure.species_index * structure.n_sites + np.arange(structure.n_sites)
    first, second = rank[pair[:, 0]], rank[pair[:, 1]]
    return (first < second) | ((first == second) & (_shift_key(shift) >= _shift_key(0 * shift)))


def _shift_key(shift: NDArray[np.integer]) -> IntArray:
    """Integer that orders shifts lexicographically."""
    base = 2 * MAX_SHIFT + 1
    x, y, z = (shift.astype(np.int64) + MAX_SHIFT).T
    return (x * base + y) * base + z


def _sort_key(
    structure: Structure, pair: NDArray[np.integer], shift: NDArray[np.integer]
) -> IntArray:
    """Integer that orders blocks by species pair, then i, j, R."""
    n_species, n_sites = len(structure.species_list), structure.n_sites
    i, j = pair.astype(np.int64).T
    species = structure.species_index[i] * n_species + structure.species_index[j]
    n_shifts = (2 * MAX_SHIFT + 1) ** 3
    return ((species * n_sites + i) * n_sites + j) * n_shifts + _shift_key(shift)


def _check_range(pair: NDArray[np.integer], shift: NDArray[np.integer], n_sites: int) -> None:
    if pair.size and (pair.min() < 0 or pair.max() >= n_sites):
        block = int(((pair < 0) | (pair >= n_sites)).any(axis=1).argmax())
        raise VcmbenchError(
            f"blocks: pair: found sites {pair[block].tolist()} in block {block}, "
            f"expected indices in 0..{n_sites - 1}"
        )
    if shift.size and np.abs(shift).max() > MAX_SHIFT:
        raise VcmbenchError(
            f"blocks: shift: found |R| = {np.abs(shift).max()}, expected at most {MAX_SHIFT}"
        )


def _ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """Concatenate ``arange(start, start + size)`` for all pairs."""
    stops = np.cumsum(sizes)
    total = int(stops[-1]) if len(stops) else 0
    return np.arange(total) + np.repeat(starts - (stops - sizes), sizes)


def _merge(first: BlockMatrix, second: BlockMatrix) -> BlockMatrix:
    """Directed operator with the blocks of both (which share none)."""
    structure, basis = first.pattern.structure, first.pattern.basis
    pair = np.concatenate([first.pattern.pair, second.pattern.pair])
    shift = np.concatenate([first.pattern.shift, second.pattern.shift])
    order = np.argsort(_sort_key(structure, pair, shift), kind="stable")
    pattern = BlockPattern(structure, basis, pair[order], shift[order], directed=True)
    values = np.concatenate([first.values, second.values])
    starts = np.concatenate(
        [first.pattern.offset[:-1], second.pattern.offset[:-1] + len(first.values)]
    )
    return BlockMatrix(pattern, values[_ranges(starts[order], np.diff(pattern.offset))])
