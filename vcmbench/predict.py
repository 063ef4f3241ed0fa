"""Predict H of whole devices slab by slab, by one process or several, into predictions stores.

output/<id>.zarr.zip          the prediction
output/.work/<id>.json        what it was made from: the same again is not computed again
output/.work/<id>/<slab>.npy  finished slabs in fixed point; gone once the prediction is there
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from vcmbench.blocks import BlockPattern
from vcmbench.documents import Document, read_json, write_json
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.excerpt import Excerpt
from vcmbench.models.interface import LoadedModel, LocalModel, require_known_species
from vcmbench.partition import PartitionSlab, device_slabs
from vcmbench.processes import ALONE, Team
from vcmbench.store.content import Content, atomic_file
from vcmbench.store.device import HAMILTONIAN_SCALE_EV, to_fixed_point
from vcmbench.store.predictions import SUFFIXES, write_predictions, write_rounded_predictions
from vcmbench.structure import Structure

WORK: Final = ".work"

Progress = Callable[[str, int, int], None]


class Target(NamedTuple):
    """What is predicted.

    Attributes
    ----------
    id : str
        Name of the store.
    structure : Structure
        Its sites.
    """

    id: str
    structure: Structure


class Plan(Document):
    """What a prediction is made from; the slabs of another plan are of no use."""

    model: str | None
    """Digest of the model; None for a callable, which is computed again each time."""
    structure: str
    """SHA-256 of the structure."""
    slab_ang: float | None


def predict(
    model: LoadedModel,
    targets: Sequence[Target],
    folder: Path,
    *,
    slab_ang: float | None = None,
    team: Team = ALONE,
    progress: Progress = lambda _name, _done, _total: None,
) -> list[Path]:
    """Predict H of structures.

    A local model (`vcmbench.models.interface.LocalModel`) works slab by slab: memory beyond the
    result does not grow with the length of a structure, the processes share the slabs, and an
    interrupted prediction goes on from the finished ones. Of another model each process takes
    whole structures.

    Parameters
    ----------
    model : LoadedModel
        What predicts.
    targets : sequence of Target
        What for.
    folder : Path
        Predictions folder; stores made from the same model and structure are left alone.
    slab_ang : float, optional
        Largest width of a slab along x, Å; in one piece if None.
    team : Team
        Processes that share the work and a file system.
    progress : callable
        Called with the target's id, finished and all slabs of this process.

    Returns
    -------
    list of Path
        The stores.

    Raises
    ------
    VcmbenchError
        If the model has no slabs but is asked for them, or refuses a structure.
    """
    local = model.model if isinstance(model.model, LocalModel) else None
    if local is None and slab_ang is not None:
        raise bad_input(
            model.name,
            "slabs",
            found="a model without predict_blocks and reach_ang",
            expected="a local one; others predict in one piece",
        )
    repeated = sorted({t.id for t in targets if [u.id for u in targets].count(t.id) > 1})
    if repeated:
        raise bad_input("predict", "id", found=f"{repeated[0]!r} twice", expected="one of each")
    paths = [folder / f"{target.id}{SUFFIXES[0]}" for target in targets]
    for index, (target, path) in enumerate(zip(targets, paths, strict=True)):
        plan = Plan(model=model.digest, structure=_digest(target.structure), slab_ang=slab_ang)
        job = _Job(target, path, plan)
        if job.is_done():
            progress(target.id, 1, 1)
        elif local is not None:
            _by_slabs(model.name, local, job, team, progress)
        elif index % team.size == team.rank:
            _whole(model, job, progress)
        team.wait()
    return paths


@dataclass(frozen=True)
class _Job:
    """One target and where its prediction comes together."""

    target: Target
    path: Path
    plan: Plan

    @property
    def plan_path(self) -> Path:
        return self.path.parent / WORK / f"{self.target.id}.json"

    @property
    def slab_folder(self) -> Path:
        return self.path.parent / WORK / self.target.id

    def slab_path(self, index: int) -> Path:
        return self.slab_folder / f"{index:05d}.npy"

    def is_planned(self) -> bool:
        """Whether what lies there was made from the same model and structure."""
        try:
            return self.plan.model is not None and read_json(Plan, self.plan_path) == self.plan
        except VcmbenchError:  # None yet, or a damaged one: computed again.
            return False

    def is_done(self) -> bool:
        return self.path.exists() and not self.slab_folder.exists() and self.is_planned()

    def begin(self) -> None:
        """Make room for slabs; those of another plan go."""
        if not self.is_planned():
            shutil.rmtree(self.slab_folder, ignore_errors=True)
        self.slab_folder.mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, self.plan)

    def finish(self) -> None:
        shutil.rmtree(self.slab_folder)


def _by_slabs(name: str, model: LocalModel, job: _Job, team: Team, progress: Progress) -> None:
    """Predict slab by slab; the leading process puts them together."""
    structure = job.target.structure
    require_known_species(name, structure, model.basis)
    pattern = BlockPattern.from_structure(structure, model.basis, model.cutoff_ang)
    everything = np.ones(pattern.n_blocks, dtype=bool)
    slabs = device_slabs(
        pattern, everything, width_ang=job.plan.slab_ang, reach_ang=model.reach_ang
    )
    if team.leads:
        job.begin()
    team.wait()
    mine = range(team.rank, len(slabs), team.size)
    for done, index in enumerate(mine):
        progress(job.target.id, done, len(mine))
        if not job.slab_path(index).exists():
            _predict_slab(model, pattern, slabs[index], job.slab_path(index))
    progress(job.target.id, len(mine), len(mine))
    team.wait()
    if team.leads:
        values = np.zeros(pattern.n_entries, dtype=np.int32)
        for index, slab in enumerate(slabs):
            values[pattern.entry_index(slab.blocks)] = np.load(job.slab_path(index))
        write_rounded_predictions(job.path, pattern, values, gauge="fermi", model=name)
        job.finish()


def _predict_slab(
    model: LocalModel, pattern: BlockPattern, slab: PartitionSlab, path: Path
) -> None:
    part = Excerpt.of(pattern, slab.blocks, slab.sites)
    matrix = model.predict_blocks(part.pattern)
    values = to_fixed_point(matrix.values, HAMILTONIAN_SCALE_EV, f"prediction for {path.parent}")
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, values)


def _whole(model: LoadedModel, job: _Job, progress: Progress) -> None:
    """Predict in one piece."""
    progress(job.target.id, 0, 1)
    matrix = model.model.predict(job.target.structure)
    job.begin()
    write_predictions(job.path.parent, job.target.id, matrix, gauge="fermi", model=model.name)
    job.finish()
    progress(job.target.id, 1, 1)


def _digest(structure: Structure) -> str:
    arrays = {field.name: getattr(structure, field.name) for field in fields(structure)}
    return Content(arrays).digest()
