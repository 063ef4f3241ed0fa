"""``splits/<name>.json``: which devices, or which ranges of one device, serve what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, model_validator

from vcmbench.documents import Document, read_json
from vcmbench.errors import unknown_name
from vcmbench.release.manifest import Name

Range = tuple[float, float]
"""[start, stop) along x in Å: 0 ≤ start < L, and a stop beyond L continues from x = 0."""


class ReleaseRef(Document):
    """The release that a split belongs to."""

    name: str
    version: str
    digest: str


class DeviceParts(Document):
    """Whole devices in parts: as in a release recipe."""

    version: PositiveInt
    parts: dict[Name, tuple[str, ...]]
    """Device ids of each part: train, validation, test, ood-filament, …"""

    @model_validator(mode="after")
    def _check(self) -> DeviceParts:
        seen: dict[str, str] = {}
        for part, ids in self.parts.items():
            for device_id in ids:
                if device_id in seen:
                    raise ValueError(
                        f"parts: found {device_id!r} in {seen[device_id]!r} and in {part!r}, "
                        "expected each device in one place"
                    )
                seen[device_id] = part
        return self

    @property
    def part_of(self) -> dict[str, str]:
        """Part of each device that is in one."""
        return {device_id: part for part, ids in self.parts.items() for device_id in ids}


class RangeParts(Document):
    """Ranges of one device in parts: as in a release recipe."""

    version: PositiveInt
    device: str
    """Id of the device that is cut."""
    parts: dict[Name, tuple[Range, ...]]
    """Ranges along x of each part, Å; what is in none of them is an unlabelled guard."""


class DeviceSplit(DeviceParts):
    """A device split of a release."""

    schema_version: Literal[1]
    kind: Literal["devices"]
    name: str
    release: ReleaseRef

    def part(self, name: str) -> tuple[str, ...]:
        """Device ids of one part."""
        if name not in self.parts:
            raise unknown_name(f"part of split {self.name!r}", name, self.parts)
        return self.parts[name]


class PartitionSplit(RangeParts):
    """A partition split of one device along the periodic transport axis x.

    Ranges of different parts are at least `guard_ang` apart, through the periodic boundary too,
    so that no site of one part has a block with a site of another.
    """

    schema_version: Literal[1]
    kind: Literal["partition"]
    name: str
    release: ReleaseRef
    period_ang: PositiveFloat
    """Length L of the device along x, Å."""
    guard_ang: PositiveFloat
    """Least width of a guard: the support of the blocks, Å."""

    @model_validator(mode="after")
    def _check_ranges(self) -> PartitionSplit:
        for part, ranges in self.parts.items():
            for start, stop in ranges:
                if not (0 <= start < self.period_ang and start < stop <= start + self.period_ang):
                    raise ValueError(
                        f"parts: {part}: found range [{start:g}, {stop:g}] Å, expected "
                        f"0 <= start < {self.period_ang:g} and at most one period"
                    )
        for part, other, end, gap in self.gaps():
            if part == other and gap <= 0:
                expected = "one range where two touch"
            elif part != other and gap < self.guard_ang:
                expected = f"a guard of at least {self.guard_ang:g} Å"
            else:
                continue
            raise ValueError(
                f"parts: found {gap:.6g} Å from {part} to {other} at x = {end:g} Å, "
                f"expected {expected}"
            )
        return self

    def gaps(self) -> list[tuple[str, str, float, float]]:
        """List the guards in order of x: the parts before and after, start and width in Å."""
        ranges = sorted((r, part) for part, each in self.parts.items() for r in each)
        found = []
        for index, ((_, stop), part) in enumerate(ranges):
            last = index == len(ranges) - 1
            (start, _), next_part = ranges[0 if last else index + 1]
            found.append((part, next_part, stop, start + last * self.period_ang - stop))
        return found

    def ranges(self, part: str) -> tuple[Range, ...]:
        """Ranges of one part, Å."""
        if part not in self.parts:
            raise unknown_name(f"part of split {self.name!r}", part, self.parts)
        return self.parts[part]


Split = DeviceSplit | PartitionSplit

_SPLIT: TypeAdapter[Split] = TypeAdapter(Annotated[Split, Field(discriminator="kind")])


def read_split(path: Path) -> Split:
    """Read a split of either kind."""
    return read_json(_SPLIT, path)
