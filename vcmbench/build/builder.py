"""Build a device: electrodes, thermal displacements, amorphous oxide, vacancies, quality."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypedDict

import numpy as np

from vcmbench.build.metal import MetalStack, displaced, metal_stack
from vcmbench.build.oxide import Oxide, Progress, quench_oxide
from vcmbench.build.quality import Quality, measure
from vcmbench.build.spec import DeviceSpec
from vcmbench.build.vacancies import with_vacancies
from vcmbench.errors import VcmbenchError
from vcmbench.structure import FloatArray, Region, Structure

MAX_ATTEMPTS: Final = 20
"""Oxides tried for one seed; narrow and long cells crystallise up to three times out of four."""


class _Result(TypedDict):
    structure: Structure
    quality: Quality


@dataclass(frozen=True, eq=False)
class BuiltDevice:
    """A structure and how it came about.

    Parameters
    ----------
    spec : DeviceSpec
        What was asked for.
    structure : Structure
        Sites ordered by region: left contact, left buffer, oxide, Ti, right buffer, right
        contact. Site a of the left contact and site a of the right one are translations.
    quality : Quality
        Its measures.
    code : str
        Name and version of the molecular-dynamics code.
    threads : int
        Threads it ran with: part of what fixes the result.
    rejected : tuple of str
        Why each earlier oxide of the same seed was thrown away.
    """

    spec: DeviceSpec
    structure: Structure
    quality: Quality
    code: str
    threads: int
    rejected: tuple[str, ...]

    def report(self) -> dict[str, object]:
        """Everything but the positions, ready for JSON."""
        return {
            "spec": self.spec.model_dump(),
            "code": self.code,
            "threads": self.threads,
            "rejected_oxides": list(self.rejected),
            "quality": self.quality.model_dump(),
        }

    def sibling(self, spec: DeviceSpec) -> BuiltDevice:
        """Return the same oxide with the vacancies of another spec, which may differ in no more.

        Equal to building `spec`, without the molecular dynamics.
        """
        ours, theirs = (s.model_copy(update={"vacancies": None}) for s in (self.spec, spec))
        if ours != theirs:
            raise VcmbenchError("sibling: found specs that differ in more than their vacancies")
        pristine = replace(self.structure, is_ghost=np.zeros(self.structure.n_sites, bool))
        return replace(self, spec=spec, **_vacate(pristine, spec))


def build_device(
    spec: DeviceSpec, *, threads: int = 1, progress: Progress | None = None
) -> BuiltDevice:
    """Build one device.

    Parameters
    ----------
    spec : DeviceSpec
        What to build.
    threads : int
        OpenMP threads of the molecular dynamics; the result depends on it.
    progress : callable, optional
        Told what is being done and the fraction done.

    Returns
    -------
    BuiltDevice
        Structure and quality.

    Raises
    ------
    VcmbenchError
        If LAMMPS is missing or fails, or if the structure is rejected; the reasons are named.
    """
    stack = metal_stack(spec)
    thermal = np.random.default_rng([spec.seed, 0])
    metal = displaced(stack, spec.displacement_ang, thermal)
    rejected: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        oxide = quench_oxide(
            stack,
            metal,
            spec.n_oxide_units,
            np.random.default_rng([spec.seed, 1, attempt]),
            threads=threads,
            progress=progress,
        )
        pristine = _assemble(stack, metal, oxide)
        quality = measure(pristine)
        problems = quality.problems()
        if not problems:
            return BuiltDevice(
                spec=spec,
                code=oxide.code,
                threads=threads,
                rejected=tuple(rejected),
                **_vacate(pristine, spec, quality),
            )
        rejected.append("; ".join(problems))
    raise VcmbenchError(
        f"structure rejected: {MAX_ATTEMPTS} oxides of seed {spec.seed} failed, the last with: "
        f"{rejected[-1]}. Try another seed or thickness."
    )


def _assemble(stack: MetalStack, metal: FloatArray, oxide: Oxide) -> Structure:
    """Sites ordered by region, with the oxide between left buffer and Ti."""
    before = int((stack.region <= Region.LEFT_BUFFER).sum())
    return Structure.create(
        np.insert(stack.numbers, before, oxide.numbers),
        np.insert(metal, before, oxide.positions, axis=0),
        np.diag(stack.cell_ang),
        region=np.insert(stack.region, before, np.full(len(oxide.numbers), Region.OXIDE)),
    )


def _vacate(pristine: Structure, spec: DeviceSpec, quality: Quality | None = None) -> _Result:
    if spec.vacancies is None:
        return {"structure": pristine, "quality": quality or measure(pristine)}
    structure = with_vacancies(pristine, spec.vacancies)
    return {"structure": structure, "quality": measure(structure)}
