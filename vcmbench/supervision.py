"""How much each part of a split supervises: devices, sites, blocks and entries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from vcmbench.blocks import BlockPattern
from vcmbench.partition import block_parts, inside_one_slab, overlaps, site_parts
from vcmbench.release import PartitionSplit, Release, Split
from vcmbench.scores.hamiltonian import HEADLINE_CUTOFF_ANG

GUARDS = "guards"
"""Name of what no part holds."""


class Counts(BaseModel):
    """Numbers of stored blocks, each pair of sites once."""

    model_config = ConfigDict(frozen=True)

    blocks: int = 0
    entries: int = 0
    ghost_blocks: int = 0
    """Blocks with a ghost at one end or both."""
    ghost_entries: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{n: v + getattr(other, n) for n, v in self})


class Supervision(BaseModel):
    """What one part holds."""

    model_config = ConfigDict(frozen=True)

    part: str
    devices: int
    left_out: int
    """Devices that a partial download left out: not counted in anything else."""
    sites: int
    near: Counts
    """Below the cutoff of the headline error, 8 Å."""
    whole: Counts
    """The whole support."""
    share: float
    """Entries of the whole support, as a share of those of all parts and guards."""


class PartitionReport(BaseModel):
    """What a partition split gives a model of a given cutoff and reach."""

    model_config = ConfigDict(frozen=True)

    slab_width_ang: float
    cutoff_ang: float
    supervised_blocks: int
    """Blocks of the training part below the cutoff: each belongs to one slab."""
    both_ends_inside_blocks: int
    """Those with both sites in one slab: all that the published rule supervises."""
    reach_ang: float
    overlaps: list[dict[str, str | float | int]]
    """`vcmbench.partition.Overlap` of each other part with the training part."""


def count(pattern: BlockPattern, blocks: NDArray[np.bool_]) -> Counts:
    """Count the selected blocks and their entries."""
    sizes = np.diff(pattern.offset)
    ghost = blocks & pattern.structure.is_ghost[pattern.pair].any(axis=1)
    return Counts(
        blocks=int(blocks.sum()),
        entries=int(sizes[blocks].sum()),
        ghost_blocks=int(ghost.sum()),
        ghost_entries=int(sizes[ghost].sum()),
    )


def supervision(release: Release, split: Split) -> list[Supervision]:
    """Count what each part of a split supervises.

    Parameters
    ----------
    release : Release
        Release of the split.
    split : Split
        Of whole devices or a partition of one.

    Returns
    -------
    list of Supervision
        One per part, and for a partition one more for its guards.
    """
    sums: defaultdict[str, dict[str, int]] = defaultdict(lambda: {"devices": 0, "sites": 0})
    near: defaultdict[str, Counts] = defaultdict(Counts)
    whole: defaultdict[str, Counts] = defaultdict(Counts)
    for part, pattern, sites, blocks in _pieces(release, split):
        sums[part]["devices"] += 1
        sums[part]["sites"] += int(sites.sum())
        near[part] += count(pattern, blocks & (pattern.distance < HEADLINE_CUTOFF_ANG))
        whole[part] += count(pattern, blocks)
    left_out = _left_out(release, split)
    total = sum(counts.entries for counts in whole.values())
    names = [*split.parts, *([GUARDS] if GUARDS in sums else [])]
    return [
        Supervision(
            part=name,
            **sums[name],
            left_out=left_out[name],
            near=near[name],
            whole=whole[name],
            share=whole[name].entries / total if total else 0.0,
        )
        for name in names
    ]


def _left_out(release: Release, split: Split) -> Counter[str]:
    """Devices of each part that are not at hand."""
    absent = release.left_out
    if isinstance(split, PartitionSplit):
        return Counter(dict.fromkeys(split.parts, int(split.device in absent)))
    return Counter({part: len(absent.intersection(ids)) for part, ids in split.parts.items()})


def _pieces(
    release: Release, split: Split
) -> Iterator[tuple[str, BlockPattern, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Part, pattern, sites and blocks of each device, or of each part of the one device."""
    absent = release.left_out
    if not isinstance(split, PartitionSplit):
        for part, ids in split.parts.items():
            for device_id in ids:
                if device_id in absent:
                    continue
                pattern = release.device(device_id).pattern
                n_sites, n_blocks = pattern.structure.n_sites, pattern.n_blocks
                yield part, pattern, np.ones(n_sites, bool), np.ones(n_blocks, bool)
        return
    if split.device in absent:
        return
    pattern = release.device(split.device).pattern
    sites, blocks = site_parts(split, pattern.structure), block_parts(split, pattern)
    for label, part in enumerate([*split.parts, GUARDS]):
        label = label if part in split.parts else -1
        yield part, pattern, sites == label, blocks == label


def partition_report(
    release: Release,
    split: PartitionSplit,
    *,
    slab_width_ang: float,
    reach_ang: float,
    train: str = "train",
) -> PartitionReport:
    """Describe the training part of a partition as a model sees it.

    Parameters
    ----------
    release : Release
        Release of the split.
    split : PartitionSplit
        The partition.
    slab_width_ang : float
        Width of the slabs of the published rule, Å.
    reach_ang : float
        Cutoff times layers of the model, Å.
    train : str
        Part that is trained on.
    """
    pattern = release.device(split.device).pattern
    pattern = pattern.subset(pattern.distance < HEADLINE_CUTOFF_ANG)
    supervised = block_parts(split, pattern) == list(split.parts).index(train)
    inside = inside_one_slab(split, train, pattern, width_ang=slab_width_ang)
    found = overlaps(split, pattern.structure, reach_ang=reach_ang, train=train)
    return PartitionReport(
        slab_width_ang=slab_width_ang,
        cutoff_ang=HEADLINE_CUTOFF_ANG,
        supervised_blocks=int(supervised.sum()),
        both_ends_inside_blocks=int(inside.sum()),
        reach_ang=reach_ang,
        overlaps=[overlap._asdict() for overlap in found],
    )
