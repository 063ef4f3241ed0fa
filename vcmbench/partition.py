"""What a partition split supervises: labels of sites and blocks, slabs with halos, overlaps.

One device is cut along its periodic transport axis x into ranges::

    x = 0 .. guard | train ............ | guard | validation | guard | test ..... | guard .. L

A block belongs to a part if both its sites lie in one range of it and its vector stays within
that range: a pair can also be joined through the periodic boundary or past another image. Every
other block is unlabelled. Guards at least as wide as the support keep the parts apart.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vcmbench.blocks import BlockPattern
from vcmbench.errors import bad_input
from vcmbench.release.splits import PartitionSplit, Range
from vcmbench.structure import FloatArray, IntArray, Structure, transport_period

UNLABELLED = -1
"""Label of sites and blocks in no part."""


class PartitionSlab(NamedTuple):
    """One piece of work: blocks to supervise and the sites a model must see for them.

    Attributes
    ----------
    start_ang, stop_ang : float
        Bounds along x in Å; beyond L they continue from x = 0.
    blocks : (n,) int
        Blocks of the pattern that are supervised here and in no other slab.
    sites : (m,) int
        Sites within the reach of either end of any of `blocks` (the ends included).
    """

    start_ang: float
    stop_ang: float
    blocks: IntArray
    sites: IntArray


class Overlap(NamedTuple):
    """How far the labels of the training part reach into another part through a model's inputs.

    Attributes
    ----------
    part : str
        The other part.
    guard_ang : float
        Width of the narrowest guard between both, Å.
    overlap_ang : float
        Depth along x that is input to labels of both, Å: twice the reach less the guard.
    seen_sites, sites : int
        Sites of the part that are input to some training label, and all its sites.
    """

    part: str
    guard_ang: float
    overlap_ang: float
    seen_sites: int
    sites: int


def site_parts(split: PartitionSplit, structure: Structure) -> IntArray:
    """Part of each site.

    Parameters
    ----------
    split : PartitionSplit
        Where the parts lie.
    structure : Structure
        Sites of the device that is split.

    Returns
    -------
    (n_sites,) int
        Index into ``list(split.parts)``, or `UNLABELLED` for the guards.
    """
    x = _positions_along(split, structure)
    label = np.full(structure.n_sites, UNLABELLED)
    for index, ranges in enumerate(split.parts.values()):
        for range_ in ranges:
            label[_within(split, range_, x)] = index
    return label


def block_parts(split: PartitionSplit, pattern: BlockPattern) -> IntArray:
    """Part that each block is a label of.

    Parameters
    ----------
    split : PartitionSplit
        Where the parts lie.
    pattern : BlockPattern
        Blocks of the device that is split, half stored or directed.

    Returns
    -------
    (n_blocks,) int
        Index into ``list(split.parts)``, or `UNLABELLED`. A block and its transpose agree.
    """
    label = np.full(pattern.n_blocks, UNLABELLED)
    for index, ranges in enumerate(split.parts.values()):
        for range_ in ranges:
            label[_inside(split, range_, pattern)] = index
    return label


def slabs(
    split: PartitionSplit,
    part: str,
    pattern: BlockPattern,
    *,
    width_ang: float,
    reach_ang: float,
) -> list[PartitionSlab]:
    """Divide the work of a part: each of its blocks belongs to exactly one slab, by its midpoint.

    Parameters
    ----------
    split : PartitionSplit
        Where the parts lie.
    part : str
        Part to divide.
    pattern : BlockPattern
        Blocks to supervise, up to the cutoff of the model.
    width_ang : float
        Largest width of a slab, Å.
    reach_ang : float
        How far a block depends on its surroundings: cutoff times layers of the model, Å.

    Returns
    -------
    list of PartitionSlab
        In order of x.
    """
    x = _positions_along(split, pattern.structure)
    found = []
    for range_ in split.ranges(part):
        inside = np.flatnonzero(_inside(split, range_, pattern))
        ends = _offsets(split, range_, x)[pattern.pair[inside]]
        edges = _edges(range_, width_ang)
        slab_of = _slab_index(ends.mean(axis=1), edges)
        for index, (start, stop) in enumerate(pairwise(edges.tolist())):
            mine = slab_of == index
            lowest, highest = _extent(ends[mine], start, stop)
            found.append(
                PartitionSlab(
                    range_[0] + start,
                    range_[0] + stop,
                    inside[mine],
                    _near(split, x, range_[0] + lowest, range_[0] + highest, reach_ang),
                )
            )
    return found


def inside_one_slab(
    split: PartitionSplit, part: str, pattern: BlockPattern, *, width_ang: float
) -> NDArray[np.bool_]:
    """Select what the published rule supervises: blocks with both sites in one slab.

    Parameters
    ----------
    split, part, pattern, width_ang
        As for `slabs`.

    Returns
    -------
    (n_blocks,) bool
        A subset of the part's blocks: those between neighbouring slabs are lost.
    """
    x = _positions_along(split, pattern.structure)
    chosen = np.zeros(pattern.n_blocks, dtype=bool)
    for range_ in split.ranges(part):
        slab_of = _slab_index(_offsets(split, range_, x), _edges(range_, width_ang))
        same = slab_of[pattern.pair[:, 0]] == slab_of[pattern.pair[:, 1]]
        chosen |= same & _inside(split, range_, pattern)
    return chosen


def overlaps(
    split: PartitionSplit, structure: Structure, *, reach_ang: float, train: str = "train"
) -> list[Overlap]:
    """How far a model's receptive fields carry the training part into the others.

    Parameters
    ----------
    split : PartitionSplit
        Where the parts lie.
    structure : Structure
        Sites of the device that is split.
    reach_ang : float
        Cutoff times layers of the model, Å.
    train : str
        Part that is trained on.

    Returns
    -------
    list of Overlap
        One per other part.
    """
    x = _positions_along(split, structure)
    labels = site_parts(split, structure)
    seen = np.zeros(structure.n_sites, dtype=bool)
    for start, stop in split.ranges(train):
        seen[_near(split, x, start, stop, reach_ang)] = True
    found = []
    for index, part in enumerate(split.parts):
        if part == train:
            continue
        guard = min(
            _distance(split.period_ang, mine, other)
            for mine in split.ranges(train)
            for other in split.ranges(part)
        )
        mine = labels == index
        found.append(
            Overlap(
                part,
                guard,
                max(0.0, 2 * reach_ang - guard),
                int((seen & mine).sum()),
                int(mine.sum()),
            )
        )
    return found


def _positions_along(split: PartitionSplit, structure: Structure) -> FloatArray:
    length = transport_period(structure, split.device)
    if abs(length - split.period_ang) > 1e-6:
        raise bad_input(
            f"split {split.name!r}",
            "period_ang",
            found=split.period_ang,
            expected=f"{length} as of its device",
        )
    return np.asarray(structure.positions[:, 0], dtype=np.float64)


def _offsets(split: PartitionSplit, range_: Range, x: FloatArray) -> FloatArray:
    """Distance along x from the start of a range, in [0, L)."""
    offset = np.mod(x - range_[0], split.period_ang)
    return np.where(offset < split.period_ang, offset, 0.0)  # -1e-17 mod L rounds to L


def _within(split: PartitionSplit, range_: Range, x: FloatArray) -> NDArray[np.bool_]:
    return _offsets(split, range_, x) < range_[1] - range_[0]


def _inside(split: PartitionSplit, range_: Range, pattern: BlockPattern) -> NDArray[np.bool_]:
    """(n_blocks,) whether both sites lie in a range and the vector does not leave it."""
    x = _positions_along(split, pattern.structure)
    within, offset = _within(split, range_, x), _offsets(split, range_, x)
    i, j = pattern.pair.T
    # Within one range, the vector from i to j is the difference of their offsets; any other
    # image of j lies whole periods further on.
    periods = np.rint((offset[i] + pattern.vector[:, 0] - offset[j]) / split.period_ang)
    return np.asarray(within[i] & within[j] & (periods == 0))


def _edges(range_: Range, width_ang: float) -> FloatArray:
    """Bounds of equal slabs no wider than asked for, from the start of the range, Å."""
    if width_ang <= 0:
        raise bad_input("slabs", "width", found=f"{width_ang} Å", expected="a positive width")
    width = range_[1] - range_[0]
    n_slabs = max(1, int(np.ceil(width / width_ang - 1e-9)))
    return np.linspace(0, width, n_slabs + 1)


def _slab_index(offset: FloatArray, edges: FloatArray) -> IntArray:
    return np.clip(np.searchsorted(edges, offset, side="right") - 1, 0, len(edges) - 2)


def _extent(ends: FloatArray, start: float, stop: float) -> tuple[float, float]:
    """Lowest and highest end of a slab's blocks, but at least the slab itself."""
    if not len(ends):
        return start, stop
    return min(start, float(ends.min())), max(stop, float(ends.max()))


def _near(
    split: PartitionSplit, x: FloatArray, start: float, stop: float, reach_ang: float
) -> IntArray:
    """Sites whose distance along x from [start, stop] is at most the reach, images included."""
    offset = np.mod(x - start, split.period_ang)
    return np.flatnonzero(
        (offset <= stop - start + reach_ang) | (offset >= split.period_ang - reach_ang)
    )


def _distance(period_ang: float, first: Range, second: Range) -> float:
    """Shortest distance along x between two ranges, images included, Å."""
    forward = (second[0] - first[1]) % period_ang
    backward = (first[0] - second[1]) % period_ang
    return float(min(forward, backward))
