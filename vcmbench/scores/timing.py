"""Timed predictions: what is delivered, other positions each time, warm-up until times are stable.

A model may offer three methods besides `predict`: ``predict_within(structure, cutoff_ang)``, which
may leave out blocks beyond a cutoff and is then what is timed; ``deliver(structure, cutoff_ang)``,
which returns the declared layout itself (`Delivered`) and takes precedence; and
``stage_seconds()``, the time that each stage of the latest prediction took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.scores.result import Timing
from vcmbench.structure import Structure

JITTER_ANG: Final = 0.01
"""Standard deviation of the random displacements of each repetition (Å)."""

STABLE: Final = 0.05
"""Warm-up ends when the median of the last three times changes by less than this fraction."""

MAX_WARMUP: Final = 8
"""Warm-up ends after so many predictions at the latest."""

REPEATS: Final = 5
"""Timed predictions."""

DELIVERY: Final = "delivery"
"""Stage after the model has returned: into the declared layout."""


class Model(Protocol):
    """What is timed."""

    def predict(self, structure: Structure) -> BlockMatrix:
        """Predict H (eV, Fermi gauge) of a structure."""
        ...


class Delivered(NamedTuple):
    """Predicted H in the declared layout, in host memory.

    Attributes
    ----------
    pair, shift : (n_blocks, 2) and (n_blocks, 3) int32
        Half-stored blocks in canonical order.
    values : (n_entries,) float32
        Their entries, eV.
    """

    pair: NDArray[np.int32]
    shift: NDArray[np.int32]
    values: NDArray[np.float32]

    def matrix(self, structure: Structure, basis: OrbitalBasis) -> BlockMatrix:
        """Return the operator; raises a VcmbenchError if the layout is not the declared one."""
        pattern = BlockPattern(structure, basis, self.pair, self.shift)
        return BlockMatrix(pattern, np.asarray(self.values, dtype=np.float64))


class Timed(NamedTuple):
    """One timed prediction.

    Attributes
    ----------
    seconds : float
        Wall time, s.
    stages_s : mapping of str to float, optional
        Time of each stage that the model reports, and of the delivery, s.
    """

    seconds: float
    stages_s: Mapping[str, float] | None


class Counts(NamedTuple):
    """What is counted per second.

    Attributes
    ----------
    sites : int
        Sites, ghosts included.
    edges : int
        Directed pairs of different sites (or images) within a cutoff.
    nonzeros : int
        Non-zero reference entries of the directed blocks within it.
    """

    sites: int
    edges: int
    nonzeros: int

    def copies(self, n: int) -> Counts:
        """Return the counts of so many copies side by side."""
        return Counts(n * self.sites, n * self.edges, n * self.nonzeros)


@dataclass
class Stopwatch:
    """Times predictions of one model.

    Parameters
    ----------
    model : Model
        The model.
    synchronise : callable
        Waits until the accelerator has finished.
    """

    model: Model
    synchronise: Callable[[], None] = lambda: None

    def time(self, structure: Structure, cutoff_ang: float) -> Timed:
        """Time one prediction, from positions in host memory to H in host memory."""
        self.synchronise()
        start = time.perf_counter()
        found = _predict(self.model, structure, cutoff_ang)
        predicted = time.perf_counter()
        in_layout(found, cutoff_ang)
        self.synchronise()
        end = time.perf_counter()
        stages = stage_seconds(self.model)
        return Timed(end - start, stages and {**stages, DELIVERY: end - predicted})

    def time_all(self, structures: Sequence[Structure], cutoff_ang: float) -> Timed:
        """Time predictions back to back, synchronised at the ends only."""
        self.synchronise()
        start = time.perf_counter()
        for structure in structures:
            deliver(self.model, structure, cutoff_ang)
        self.synchronise()
        return Timed(time.perf_counter() - start, None)


def deliver(model: Model, structure: Structure, cutoff_ang: float) -> Delivered:
    """Predict H and bring it into the declared layout: this is what is timed.

    Parameters
    ----------
    model : Model
        The model.
    structure : Structure
        Its input.
    cutoff_ang : float
        Blocks of sites at this distance (Å) or beyond are left out.
    """
    return in_layout(_predict(model, structure, cutoff_ang), cutoff_ang)


def _predict(model: Any, structure: Structure, cutoff_ang: float) -> BlockMatrix | Delivered:
    if hasattr(model, "deliver"):
        return Delivered(*model.deliver(structure, cutoff_ang))
    if hasattr(model, "predict_within"):
        within: BlockMatrix = model.predict_within(structure, cutoff_ang)
        return within
    whole: BlockMatrix = model.predict(structure)
    return whole


def in_layout(found: BlockMatrix | Delivered, cutoff_ang: float) -> Delivered:
    """Bring a prediction into the declared layout, unless it is there already."""
    if isinstance(found, Delivered):
        return found
    matrix = found.symmetrise()[0] if found.pattern.directed else found
    if (matrix.pattern.distance >= cutoff_ang).any():
        matrix = matrix.truncate(cutoff_ang)
    pattern = matrix.pattern
    return Delivered(pattern.pair, pattern.shift, matrix.values.astype(np.float32))


def jittered(structure: Structure, seed: int) -> Iterator[Structure]:
    """Endless sequence of slightly displaced structures."""
    rng = np.random.default_rng(seed)
    while True:
        displacements = rng.normal(scale=JITTER_ANG, size=structure.positions.shape)
        yield structure.moved(structure.positions + displacements)


def warm_up(
    once: Callable[[], Timed], *, most: int = MAX_WARMUP, budget_s: float = float("inf")
) -> list[float]:
    """Predict until times are stable, once at least; return the times, the cold one first.

    Parameters
    ----------
    once : callable
        Makes one timed prediction.
    most : int
        Largest number of predictions.
    budget_s : float
        No further prediction begins after so much time, s.
    """
    times: list[float] = []
    while not times or (len(times) < most and not is_stable(times) and sum(times) < budget_s):
        times.append(once().seconds)
    return times


def repeat(
    once: Callable[[], Timed],
    *,
    fewest: int = REPEATS,
    most: int = REPEATS,
    budget_s: float = float("inf"),
) -> list[Timed]:
    """Make the timed predictions that count.

    Parameters
    ----------
    once : callable
        Makes one timed prediction.
    fewest, most : int
        How many; between the two the budget decides.
    budget_s : float
        Once `fewest` are made, no further one begins after so much time, s.
    """
    found: list[Timed] = []
    while len(found) < fewest or (len(found) < most and sum(t.seconds for t in found) < budget_s):
        found.append(once())
    return found


def is_stable(times_s: Sequence[float]) -> bool:
    """Whether the median of the last three times differs little from that one step earlier."""
    if len(times_s) < 4:
        return False
    earlier, latest = np.median(times_s[-4:-1]), np.median(times_s[-3:])
    return bool(abs(latest - earlier) < STABLE * latest)


def stage_seconds(model: object) -> dict[str, float] | None:
    """Time that each stage of the latest prediction took, if the model reports it, s."""
    report = getattr(model, "stage_seconds", None)
    return None if report is None else dict(report())


def median_stages(timed: Sequence[Timed]) -> dict[str, float] | None:
    """Median time of each stage over the predictions, s."""
    known = [t.stages_s for t in timed if t.stages_s is not None]
    if not known:
        return None
    names = dict.fromkeys(name for stages in known for name in stages)
    return {name: float(np.median([s.get(name, 0.0) for s in known])) for name in names}


def count(reference: BlockMatrix, cutoff_ang: float) -> Counts:
    """Count what a prediction within a cutoff (Å) holds, by its reference."""
    pattern = reference.pattern
    weight = np.where(pattern.distance < cutoff_ang, pattern.weight, 0)
    nonzero = np.add.reduceat(reference.values != 0, pattern.offset[:-1], dtype=np.int64)
    return Counts(
        pattern.structure.n_sites,
        int(weight[~pattern.is_onsite].sum()),
        int(weight @ nonzero),
    )


def timing(
    warmup_s: Sequence[float], timed: Sequence[Timed], counts: Counts, cutoff_ang: float
) -> Timing:
    """Statistics of repeated predictions.

    Parameters
    ----------
    warmup_s : sequence of float
        Times before they were stable, s.
    timed : sequence of Timed
        Predictions that count.
    counts : Counts
        What each of them delivers.
    cutoff_ang : float
        Blocks of sites closer than this are delivered, Å.
    """
    times_s = [t.seconds for t in timed]
    median = float(np.median(times_s))
    low, high = np.percentile(times_s, [25, 75])
    return Timing(
        cutoff_ang=cutoff_ang,
        median_s=median,
        iqr_s=float(high - low),
        fastest_s=min(times_s),
        n_repeats=len(times_s),
        n_warmup=len(warmup_s),
        stable=is_stable(warmup_s),
        atoms_per_s=counts.sites / median,
        edges_per_s=counts.edges / median,
        nonzeros_per_s=counts.nonzeros / median,
    )
