"""T(k, E) whose points are kept on disk, so that an interrupted sweep goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import BaseModel, TypeAdapter

from vcmbench.blocks import BlockMatrix
from vcmbench.resources import cache_folder
from vcmbench.stages import Stages
from vcmbench.structure import FloatArray
from vcmbench.transport import Lead, Transmission, transmission
from vcmbench.transport.sweep import POINT, Points

if TYPE_CHECKING:
    from distributed import Client

KEEP_EVERY_S = 10.0
"""How often the points of an unfinished sweep are written to disk."""


class Grid(NamedTuple):
    """Where T is evaluated.

    Attributes
    ----------
    energies_ev : (n_energies,) float
        Relative to the Fermi level.
    kpoints, weights : (n_k, 3) and (n_k,) float
        Fractional wave vectors and their weights.
    """

    energies_ev: FloatArray
    kpoints: FloatArray
    weights: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """(n_k, n_energies)."""
        return len(self.kpoints), len(self.energies_ev)


class _Kept(BaseModel):
    """Points of a sweep as JSON: one list per field, null where not yet computed."""

    points: dict[str, list[list[float | None]]]


def kept_transmission(
    stages: Stages,
    name: str,
    key: object,
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    lead: Lead,
    grid: Grid,
    progress: Callable[[int], None] = lambda _done: None,
    accelerator: str = "cpu",
    client: Client | None = None,
) -> Transmission:
    """Transmission of a device; points found under the same name and key are not computed again.

    Parameters
    ----------
    stages : Stages
        Where points are kept.
    name : str
        Name of the stage.
    key : JSON value
        Everything that the points depend on.
    hamiltonian, overlap, lead
        As for `vcmbench.transport.transmission`.
    grid : Grid
        Energies and k-points.
    progress : callable
        Called with the number of finished points.
    accelerator : str
        ``"cpu"`` or ``"cuda"``.
    client : distributed.Client, optional
        Whose workers solve the points.
    """
    kind = TypeAdapter(_Kept)
    kept = stages.find(name, key, kind)
    known = None if kept is None else _points(kept, grid.shape)
    complete = known is not None and not np.isnan(known["transmission"]).any()
    every = _Every(KEEP_EVERY_S)

    def keep(done: int, points: Points) -> None:
        progress(done)
        if every.due() or done == points.size:
            stages.keep(name, key, kind, _keepable(points))

    with stages.measure(name, cached=complete):
        return transmission(
            hamiltonian,
            overlap,
            lead,
            *grid,
            cache=cache_folder() / "leads",
            known=known,
            progress=keep,
            accelerator=accelerator,
            client=client,
        )


class _Every:
    """Says when a given time has passed since it last said so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def _keepable(points: Points) -> _Kept:
    fields = points.dtype.names or ()
    return _Kept(
        points={
            name: [[None if math.isnan(v) else v for v in row] for row in points[name].tolist()]
            for name in fields
        }
    )


def _points(kept: _Kept, shape: tuple[int, int]) -> Points | None:
    points = np.full(shape, np.nan, dtype=POINT)
    for name in POINT.names or ():
        values = np.array(kept.points.get(name, []), dtype=np.float64)
        if values.shape != shape:
            return None
        points[name] = values
    return points
