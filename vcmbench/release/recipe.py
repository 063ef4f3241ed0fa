"""``NAME.release.yml``: what a maintainer decides about a release; the rest is measured."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, PositiveFloat, ValidationError, model_validator

from vcmbench.device import SUPPORT_ANG
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.jsonfile import first_problem
from vcmbench.release.manifest import Name, ReleaseInfo
from vcmbench.release.opened import DEFAULT_SPLIT
from vcmbench.release.splits import DeviceParts, RangeParts


class ReleaseRecipe(ReleaseInfo):
    """A release recipe."""

    card: Path
    """Dataset card; in a file, relative to it."""
    devices: DeviceParts
    """The device split."""
    partitions: dict[Name, RangeParts] = Field(default_factory=dict)
    """Partition splits by name."""
    support_ang: PositiveFloat = SUPPORT_ANG
    """Every pair of sites closer than this has a block, Å."""

    @model_validator(mode="after")
    def _check(self) -> ReleaseRecipe:
        if DEFAULT_SPLIT in self.partitions:
            raise ValueError(f"partitions: found {DEFAULT_SPLIT!r}, the name of the device split")
        return self


def read_recipe(path: Path) -> ReleaseRecipe:
    """Read a release recipe.

    Raises
    ------
    VcmbenchError
        If it cannot be read, a field is missing, unknown or wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise VcmbenchError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise VcmbenchError(f"{path}: no YAML ({error})") from error
    if not isinstance(content, dict):
        raise bad_input(path, "content", found=type(content).__name__, expected="a mapping")
    try:
        recipe = ReleaseRecipe.model_validate(content)
    except ValidationError as error:
        raise VcmbenchError(f"{path}: {first_problem(error)}") from error
    return recipe.model_copy(update={"card": path.parent / recipe.card})
