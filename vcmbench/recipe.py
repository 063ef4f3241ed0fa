"""A recipe: the devices of a dataset and the DFT settings they are computed with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from vcmbench.build.spec import DeviceSpec
from vcmbench.dft.cp2k_input import Cp2kSettings
from vcmbench.documents import Document, read_yaml
from vcmbench.errors import VcmbenchError

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
"""Name of a device or lead, also of its files."""


class DeviceJob(Document):
    """One device of a recipe."""

    id: Id
    """Name in the dataset."""
    structure: DeviceSpec

    @property
    def family(self) -> DeviceSpec:
        """The spec without its vacancies: what siblings share."""
        return self.structure.model_copy(update={"vacancies": None})


class Recipe(Document):
    """What `vcmbench data build` computes."""

    name: str
    lead: Id = "lead-tin"
    """Id of the lead: the 8-atom TiN cell, at these settings."""
    dft: Cp2kSettings = Cp2kSettings()
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Fields of every device's `structure` that it does not give itself."""
    threads: int = Field(default=1, ge=1)
    """Threads of the molecular dynamics: they are part of what fixes a structure."""
    devices: tuple[DeviceJob, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Give every device the defaults."""
        if not isinstance(data, dict) or not isinstance(data.get("devices"), list):
            return data
        defaults = data.get("defaults") or {}

        def filled(device: Any) -> Any:
            given = device.get("structure") or {} if isinstance(device, dict) else None
            if not isinstance(defaults, dict) or not isinstance(given, dict):
                return device  # The fields' own checks say what is wrong.
            return {**device, "structure": {**defaults, **given}}

        return {**data, "devices": [filled(device) for device in data["devices"]]}

    @model_validator(mode="after")
    def _unique(self) -> Recipe:
        ids = [self.lead, *(device.id for device in self.devices)]
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"devices: id: found {repeated[0]!r} twice, expected each once")
        return self

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file.

        Raises
        ------
        VcmbenchError
            If it cannot be read or a field is wrong; every problem is named.
        """
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            problems = (
                ": ".join(filter(None, [str(path), ".".join(map(str, p["loc"])), p["msg"]]))
                for p in error.errors()
            )
            raise VcmbenchError("\n".join(problems)) from None

    def families(self) -> Iterator[tuple[DeviceJob, ...]]:
        """Siblings together, in the order of the recipe; the first of each is computed first."""
        remaining = list(self.devices)
        while remaining:
            family = remaining[0].family
            yield tuple(job for job in remaining if job.family == family)
            remaining = [job for job in remaining if job.family != family]
