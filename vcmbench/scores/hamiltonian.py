"""Errors of the entries of H: sums over blocks, broken down by what the blocks are.

A matrix is visited in chunks of blocks. The entries of one shell pair of one block are summed
first, in a fixed order; from there on sums are exact (`statistics`), so that the score does not
depend on how the blocks were cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vcmbench.basis import OrbitalBasis, Species, pair_label
from vcmbench.blocks import BlockMatrix, BlockPattern, Slab
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.scores.result import (
    BlockSupport,
    Bounds,
    DeviceHamiltonian,
    DistanceShell,
    GaugeErrors,
    GroupErrors,
    HamiltonianSection,
    Hermiticity,
    LargestEntry,
    LayerShift,
)
from vcmbench.scores.statistics import GroupedSums, LogHistogram, bootstrap
from vcmbench.structure import FloatArray, IntArray, Region, Structure
from vcmbench.units import MEV_PER_EV

HEADLINE_CUTOFF_ANG: Final = 8.0
"""The headline MAE is over blocks closer than this (Å): the published cutoff."""

SHELL_ANG: Final = 1.0
"""Width of a distance shell (Å); the headline's cutoff is a boundary of one."""

LAYER_ANG: Final = 2.12
"""Approximate thickness of a layer of the local gauge shift: one atomic plane of TiN (Å)."""

ERROR_LIMIT_EV: Final = 1e4
"""No error of a matrix of valence states is as large as this (eV)."""

CHUNK_ENTRIES: Final = 1 << 19
"""Entries per chunk: a few MB, so that the temporary arrays stay in the cache."""

_SHELL_LETTERS = "spdfg"
_QUANTITIES = ("absolute", "signed", "squared", "after_gauge")
# Fields of a group's key: species of both ends (2 Z + ghost), the l of both shells in ascending
# order, distance (0 on-site, 1 + shell otherwise) and regions of both ends (1 + region).
_KEY_SHAPE = (256, 256, 5, 5, 256, 7, 7)
_FIELDS = ("species_i", "species_j", "l", "l2", "distance", "region", "region2")


class Alignment(NamedTuple):
    """A prediction brought onto the reference's blocks.

    Attributes
    ----------
    matrix : BlockMatrix
        (H + H†)/2 on the reference's pattern; missing blocks are zero.
    support : BlockSupport
        Missing and extra blocks.
    hermiticity : Hermiticity
        Residual of the prediction as delivered.
    """

    matrix: BlockMatrix
    support: BlockSupport
    hermiticity: Hermiticity


class Largest(NamedTuple):
    """The worst entry; `max` of several is associative, ties included."""

    error_ev: float
    device: str
    block: tuple[int, int, int, int, int]
    """Sites i, j and shift R."""
    pair: str
    distance_ang: float


_NO_LARGEST = Largest(-1.0, "", (0, 0, 0, 0, 0), "", 0.0)


@dataclass(frozen=True)
class HamiltonianStatistic:
    """What adds up over parts of a device and over devices.

    Parameters
    ----------
    groups : GroupedSums
        Exact sums of |ΔH|, ΔH, ΔH² and |ΔH − μ*S| over directed entries, by group; in eV.
    near, far : LogHistogram
        |ΔH| in eV of the entries of blocks within and beyond the headline's cutoff.
    largest, largest_full : Largest
        Worst entry within the cutoff and of all.
    """

    groups: GroupedSums
    near: LogHistogram
    far: LogHistogram
    largest: Largest
    largest_full: Largest

    @classmethod
    def zero(cls) -> HamiltonianStatistic:
        """Statistic of no blocks."""
        return cls(
            GroupedSums.zero(len(_QUANTITIES)),
            LogHistogram.zero(),
            LogHistogram.zero(),
            _NO_LARGEST,
            _NO_LARGEST,
        )

    def __add__(self, other: HamiltonianStatistic) -> HamiltonianStatistic:
        return HamiltonianStatistic(
            self.groups + other.groups,
            self.near + other.near,
            self.far + other.far,
            max(self.largest, other.largest),
            max(self.largest_full, other.largest_full),
        )

    @property
    def mae_mev(self) -> float:
        """Mean |ΔH| closer than the headline's cutoff, meV."""
        return _totals(self.groups.select(_is_near(self.groups.key))).mean_mev("absolute")


@dataclass(frozen=True)
class DeviceErrors:
    """Errors of one device: what adds up, and what only means something per device.

    Parameters
    ----------
    device : str
        Device id.
    statistic : HamiltonianStatistic
        Sums over its entries.
    gauge_shift_ev : float
        μ* = ⟨S, ΔH⟩/⟨S, S⟩.
    layers : tuple of LayerShift
        Local shift along x.
    support : BlockSupport
        Missing and extra blocks.
    hermiticity : Hermiticity
        Residual of the prediction.
    """

    device: str
    statistic: HamiltonianStatistic
    gauge_shift_ev: float
    layers: tuple[LayerShift, ...]
    support: BlockSupport
    hermiticity: Hermiticity


def align(predicted: BlockMatrix, reference: BlockPattern) -> Alignment:
    """Bring a prediction onto the reference's pattern.

    Parameters
    ----------
    predicted : BlockMatrix
        Predicted H in eV, half stored or directed.
    reference : BlockPattern
        Half-stored pattern of the support.

    Returns
    -------
    Alignment

    Raises
    ------
    VcmbenchError
        If the prediction has other sites, positions or orbitals than the reference.
    """
    reference.require_same_sites(predicted.pattern)
    _require_same_positions(reference.structure, predicted.pattern.structure)
    matrix, residual = _hermitian_part(predicted)
    hermiticity = Hermiticity(
        largest_mev=float(residual.max(initial=0.0)) * MEV_PER_EV,
        mean_mev=float(residual.sum()) / max(1, matrix.pattern.n_entries) * MEV_PER_EV,
    )
    if matrix.pattern is reference:
        support = BlockSupport(missing_blocks=0, extra_blocks=0, extra_largest_mev=0.0)
        return Alignment(matrix, support, hermiticity)
    extra = matrix.select(~reference.locate(matrix.pattern).found)
    support = BlockSupport(
        missing_blocks=_count_missing(predicted.pattern, reference),
        extra_blocks=int(extra.pattern.weight.sum()),
        extra_largest_mev=float(np.abs(extra.values).max(initial=0.0)) * MEV_PER_EV,
    )
    return Alignment(matrix.align(reference), support, hermiticity)


def _require_same_positions(reference: Structure, predicted: Structure) -> None:
    if predicted is reference:
        return
    for name in ("positions", "cell"):
        found, expected = getattr(predicted, name), getattr(reference, name)
        if not np.allclose(found, expected, rtol=0, atol=1e-6):
            raise bad_input(
                "prediction",
                name,
                found=f"values up to {np.abs(found - expected).max():.3g} Å away",
                expected="those of the reference: block shifts refer to them",
            )


def _hermitian_part(matrix: BlockMatrix) -> tuple[BlockMatrix, FloatArray]:
    """(H + H†)/2, half stored, and |H − H†| of the entries where it can differ from zero."""
    if matrix.pattern.directed:
        return matrix.symmetrise()
    onsite = matrix.pattern.entry_mask(matrix.pattern.is_onsite)
    hermitian, residual = matrix.select(matrix.pattern.is_onsite).symmetrise()
    values = matrix.values.copy()
    values[onsite] = hermitian.values
    return matrix.with_values(values), residual


def _count_missing(predicted: BlockPattern, reference: BlockPattern) -> int:
    """Directed blocks of the reference that are not among the predicted ones."""
    if predicted.directed:
        reference = BlockMatrix.zeros(reference).directed().pattern
    found = predicted.locate(reference).found
    return int(reference.weight[~found].sum())


def device_errors(
    device: str, reference: BlockMatrix, overlap: BlockMatrix, predicted: Alignment
) -> DeviceErrors:
    """Compare a prediction with the reference of one device.

    Parameters
    ----------
    device : str
        Device id.
    reference, overlap : BlockMatrix
        H (eV) and S of the device, on one half-stored pattern.
    predicted : Alignment
        The prediction on the same pattern (`align`).

    Returns
    -------
    DeviceErrors
    """
    projections = _gauge_projections(reference, overlap, predicted.matrix)
    shift_ev = _ratio(*(projections * reference.pattern.weight).sum(axis=1))
    return DeviceErrors(
        device,
        block_statistic(device, reference, overlap, predicted.matrix, gauge_shift_ev=shift_ev),
        shift_ev,
        tuple(_layer_shifts(reference.pattern, projections)),
        predicted.support,
        predicted.hermiticity,
    )


def block_statistic(
    device: str,
    reference: BlockMatrix,
    overlap: BlockMatrix,
    predicted: BlockMatrix,
    *,
    gauge_shift_ev: float,
) -> HamiltonianStatistic:
    """Statistic of any part of a device's blocks.

    Parameters
    ----------
    device : str
        Device id.
    reference, overlap, predicted : BlockMatrix
        H (eV), S and the predicted H (eV) on one half-stored pattern.
    gauge_shift_ev : float
        μ* of the whole device.

    Returns
    -------
    HamiltonianStatistic

    Raises
    ------
    VcmbenchError
        If an entry is wrong by more than `ERROR_LIMIT_EV`.
    """
    pattern = reference.pattern
    keys = _block_keys(pattern)
    result = HamiltonianStatistic.zero()
    for slab, blocks in _chunks(pattern):
        ours, theirs, s = (_blocks(m, slab, blocks) for m in (reference, predicted, overlap))
        delta = theirs - ours
        absolute = np.abs(delta)
        if absolute.max() > ERROR_LIMIT_EV:
            raise bad_input(
                "prediction",
                f"hamiltonian of {device}",
                found=f"an entry wrong by {absolute.max():.3g} eV",
                expected=f"at most {ERROR_LIMIT_EV:g} eV (is the unit eV?)",
            )
        quantities = (absolute, delta, delta * delta, np.abs(delta - gauge_shift_ev * s))
        weight = pattern.weight[blocks, None, None]
        shells = _SlabShells.of(pattern.basis, slab)
        largest = shells.reduce(np.maximum, absolute)
        groups = GroupedSums.of(
            (keys[blocks, None, None] + shells.key).ravel(),
            (weight * shells.size).ravel(),
            np.stack([(weight * shells.reduce(np.add, q)).ravel() for q in quantities]),
            largest.ravel(),
        )
        near = pattern.distance[blocks] < HEADLINE_CUTOFF_ANG
        every = np.arange(blocks.start, blocks.stop)
        per_block = largest.max(axis=(1, 2))
        result += HamiltonianStatistic(
            groups,
            _histogram(absolute[near], pattern.weight[every[near]]),
            _histogram(absolute[~near], pattern.weight[every[~near]]),
            _worst(device, pattern, slab, every[near], per_block[near]),
            _worst(device, pattern, slab, every, per_block),
        )
    return result


def _chunks(pattern: BlockPattern) -> Iterator[tuple[Slab, slice]]:
    """Blocks of one species pair at a time, at most `CHUNK_ENTRIES` entries or one block."""
    for slab in pattern.slabs:
        step = max(1, CHUNK_ENTRIES // (slab.n_i * slab.n_j))
        for start in range(slab.blocks.start, slab.blocks.stop, step):
            yield slab, slice(start, min(start + step, slab.blocks.stop))


def _blocks(matrix: BlockMatrix, slab: Slab, blocks: slice) -> FloatArray:
    """(n, n_i, n_j) view of a chunk."""
    offset = matrix.pattern.offset
    entries = matrix.values[offset[blocks.start] : offset[blocks.stop]]
    return entries.reshape(blocks.stop - blocks.start, slab.n_i, slab.n_j)


class _SlabShells(NamedTuple):
    """The shells of a species pair."""

    rows: IntArray
    columns: IntArray
    size: IntArray
    """(n_shells_i, n_shells_j) entries of each shell pair."""
    key: IntArray
    """(n_shells_i, n_shells_j) their part of the group's key."""

    @classmethod
    def of(cls, basis: OrbitalBasis, slab: Slab) -> _SlabShells:
        first, second = (np.array(basis.shells_of(s)) for s in (slab.species_i, slab.species_j))
        sizes = 2 * first + 1, 2 * second + 1
        lower, upper = np.minimum.outer(first, second), np.maximum.outer(first, second)
        zero = np.zeros_like(lower)
        key = np.ravel_multi_index((zero, zero, lower, upper, zero, zero, zero), _KEY_SHAPE)
        starts = [np.cumsum(size) - size for size in sizes]
        return cls(starts[0], starts[1], np.multiply.outer(*sizes), key)

    def reduce(self, operation: np.ufunc, blocks: FloatArray) -> FloatArray:
        """(n, n_shells_i, n_shells_j) of (n, n_i, n_j): `operation` over each shell pair."""
        by_column = operation.reduceat(blocks, self.columns, axis=2)
        return operation.reduceat(by_column, self.rows, axis=1)


def _block_keys(pattern: BlockPattern) -> IntArray:
    """(n_blocks,) group key of each block but for the shells."""
    structure = pattern.structure
    species = (2 * structure.numbers.astype(np.int64) + structure.is_ghost)[pattern.pair]
    shell = 1 + (pattern.distance // SHELL_ANG).astype(np.int64)
    distance = np.where(pattern.is_onsite, 0, np.minimum(shell, _KEY_SHAPE[4] - 1))
    region = 1 + np.sort(structure.region.astype(np.int64)[pattern.pair], axis=1)
    none = np.zeros_like(distance)
    fields = (species[:, 0], species[:, 1], none, none, distance, region[:, 0], region[:, 1])
    return np.ravel_multi_index(fields, _KEY_SHAPE)


def _histogram(absolute: FloatArray, weight: IntArray) -> LogHistogram:
    """Histogram in which every block counts as often as its weight, 1 or 2."""
    return 2 * LogHistogram.of(absolute) - LogHistogram.of(absolute[weight == 1])


def _worst(
    device: str, pattern: BlockPattern, slab: Slab, blocks: IntArray, errors: FloatArray
) -> Largest:
    """Worst of the given blocks; the first one where several are equally bad."""
    if not len(blocks):
        return _NO_LARGEST
    block = int(blocks[errors.argmax()])
    i, j = pattern.pair[block].tolist()
    x, y, z = pattern.shift[block].tolist()
    return Largest(
        float(errors.max()),
        device,
        # Negated, so that `max` prefers the first of equal ones here, too.
        (-i, -j, -x, -y, -z),
        pair_label(slab.species_i, slab.species_j),
        float(pattern.distance[block]),
    )


def _gauge_projections(
    reference: BlockMatrix, overlap: BlockMatrix, predicted: BlockMatrix
) -> FloatArray:
    """(2, n_blocks) ⟨S, ΔH⟩ and ⟨S, S⟩ of each stored block."""
    pattern = reference.pattern
    result = np.empty((2, pattern.n_blocks))
    for slab, blocks in _chunks(pattern):
        ours, theirs, s = (_blocks(m, slab, blocks) for m in (reference, predicted, overlap))
        result[0, blocks] = np.einsum("nij,nij->n", s, theirs - ours)
        result[1, blocks] = np.einsum("nij,nij->n", s, s)
    return result


def _layer_shifts(pattern: BlockPattern, projections: FloatArray) -> Iterator[LayerShift]:
    """Local shift μ*(x) of layers normal to the first cell vector.

    A directed block belongs to the layer of the site it starts from, so that each off-site pair
    counts once for each of its ends; this is Mulliken's way to share it, and unlike the midpoint
    of a pair it is always on an atom, also across the periodic boundary. Layers are centred on
    x = 0, so that the atomic planes of an ideal contact lie in the middle of layers.
    """
    structure = pattern.structure
    length = float(np.linalg.norm(structure.cell[0]))
    n_layers = max(1, round(length / LAYER_ANG))
    fraction = (structure.positions @ np.linalg.inv(structure.cell))[:, 0]
    layer = np.round(fraction * n_layers).astype(np.int64) % n_layers
    ends = layer[pattern.pair]
    off_site = ~pattern.is_onsite
    totals = [
        np.bincount(ends[:, 0], values, n_layers)
        + np.bincount(ends[off_site, 1], values[off_site], n_layers)
        for values in projections
    ]
    for index in np.flatnonzero(totals[1] > 0).tolist():
        yield LayerShift(
            x_ang=index * length / n_layers,
            shift_mev=_ratio(totals[0][index], totals[1][index]) * MEV_PER_EV,
        )


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator) / float(denominator) if denominator else 0.0


def score_device(error: DeviceErrors) -> DeviceHamiltonian:
    """Metrics of one device."""
    return DeviceHamiltonian(**_errors([error]), layers=list(error.layers))


def score_devices(
    errors: Sequence[DeviceErrors], *, reference_mae_mev: float | None = None
) -> HamiltonianSection:
    """Metrics of several devices, their entries pooled.

    Parameters
    ----------
    errors : sequence of DeviceErrors
        At least one device.
    reference_mae_mev : float, optional
        MAE of the frozen Slater–Koster weights on the same devices, for the skill.

    Returns
    -------
    HamiltonianSection
    """
    if not errors:
        raise VcmbenchError("hamiltonian: found no devices to score, expected at least one")
    pooled = _errors(errors)
    devices = {error.device: score_device(error) for error in errors}
    maes = np.array([device.mae_mev for device in devices.values()])
    counts = np.array([device.n_entries for device in devices.values()])
    interval = bootstrap(maes * counts, counts)
    return HamiltonianSection(
        **pooled,
        device_mean_mae_mev=float(maes.mean()),
        mae_bounds_mev=None if interval is None else Bounds(low=interval.low, high=interval.high),
        skill=skill(pooled["mae_mev"], reference_mae_mev),
        devices=devices,
    )


def skill(mae_mev: float, reference_mae_mev: float | None) -> float | None:
    """1 − MAE/MAE of a reference model; None without one."""
    if not reference_mae_mev:
        return None
    return 1 - mae_mev / reference_mae_mev


def _errors(errors: Sequence[DeviceErrors]) -> dict[str, Any]:
    """Fields of `HamiltonianErrors` for the entries of all `errors` together."""
    statistic = reduce(add, (e.statistic for e in errors), HamiltonianStatistic.zero())
    groups, key = statistic.groups, _decode(statistic.groups.key)
    near, full = _totals(groups.select(_is_near(groups.key))), _totals(groups)
    if not near.count:
        raise VcmbenchError("hamiltonian: found no blocks, expected at least the on-site ones")
    shifts_ev = np.array([e.gauge_shift_ev for e in errors])
    shift_ev = shifts_ev[0] if len(errors) == 1 else np.sqrt(np.mean(shifts_ev**2))
    p99, p99_full = (h.quantile(0.99) for h in (statistic.near, statistic.near + statistic.far))
    is_ghost = (key["species_i"] | key["species_j"]) & 1
    shell = np.maximum(key["distance"] - 1, 0)
    return {
        "mae_mev": near.mean_mev("absolute"),
        "mae_full_mev": full.mean_mev("absolute"),
        "mean_mev": near.mean_mev("signed"),
        "rmse_mev": near.rms_mev,
        "rmse_full_mev": full.rms_mev,
        "p99_mev": min(p99, statistic.largest.error_ev) * MEV_PER_EV,
        "p99_full_mev": min(p99_full, statistic.largest_full.error_ev) * MEV_PER_EV,
        "largest": _largest(statistic.largest),
        "largest_full": _largest(statistic.largest_full),
        "n_entries": near.count,
        "n_entries_full": full.count,
        "by_site": _breakdown(
            groups, [(key["distance"] > 0)], lambda off: "off-site" if off else "on-site"
        ),
        "by_pair": _breakdown(groups, [key["species_i"], key["species_j"]], _pair_name),
        "by_shell": _breakdown(
            groups, [key["l"], key["l2"]], lambda *ls: "-".join(_SHELL_LETTERS[l] for l in ls)
        ),
        "by_distance": [
            DistanceShell(
                low_ang=index * SHELL_ANG,
                high_ang=(index + 1) * SHELL_ANG,
                **_group_errors(groups.select(shell == index)).model_dump(),
            )
            for index in np.unique(shell).tolist()
        ],
        "by_ghost": _breakdown(groups, [is_ghost], lambda ghost: "ghost" if ghost else "no-ghost"),
        "by_region": _breakdown(groups, [key["region"], key["region2"]], _region_name)
        if (key["region2"] > 0).any()
        else {},
        "gauge": GaugeErrors(
            shift_mev=float(shift_ev) * MEV_PER_EV,
            mae_mev=near.mean_mev("after_gauge"),
            mae_full_mev=full.mean_mev("after_gauge"),
        ),
        "support": BlockSupport(
            missing_blocks=sum(e.support.missing_blocks for e in errors),
            extra_blocks=sum(e.support.extra_blocks for e in errors),
            extra_largest_mev=max(e.support.extra_largest_mev for e in errors),
        ),
        "hermiticity": Hermiticity(
            largest_mev=max(e.hermiticity.largest_mev for e in errors),
            mean_mev=float(np.mean([e.hermiticity.mean_mev for e in errors])),
        ),
    }


@dataclass(frozen=True)
class _Totals:
    """Sums over all entries of some groups."""

    count: int
    sums: Mapping[str, float]
    largest: float

    def mean_mev(self, quantity: str) -> float:
        """Mean of one quantity in eV, as meV."""
        return self.sums[quantity] / self.count * MEV_PER_EV

    @property
    def rms_mev(self) -> float:
        """Root mean square of ΔH in meV."""
        return float(np.sqrt(self.sums["squared"] / self.count)) * MEV_PER_EV


def _totals(groups: GroupedSums) -> _Totals:
    total = groups.regroup(0)
    if not len(total.key):
        return _Totals(0, {}, 0.0)
    sums = dict(zip(_QUANTITIES, total.sums[0].tolist(), strict=True))
    return _Totals(int(total.count[0]), sums, float(total.largest[0]))


def _decode(key: IntArray) -> dict[str, IntArray]:
    """Fields of group keys."""
    return dict(zip(_FIELDS, np.unravel_index(key, _KEY_SHAPE), strict=True))


def _is_near(key: IntArray) -> NDArray[np.bool_]:
    """Whether each group is within the headline's cutoff: a boundary of distance shells."""
    return _decode(key)["distance"] <= round(HEADLINE_CUTOFF_ANG / SHELL_ANG)


def _group_errors(groups: GroupedSums) -> GroupErrors:
    near, full = _totals(groups.select(_is_near(groups.key))), _totals(groups)
    return GroupErrors(
        mae_mev=near.mean_mev("absolute") if near.count else None,
        rmse_mev=near.rms_mev if near.count else None,
        largest_mev=near.largest * MEV_PER_EV if near.count else None,
        n_entries=near.count,
        mae_full_mev=full.mean_mev("absolute") if full.count else None,
        rmse_full_mev=full.rms_mev if full.count else None,
        largest_full_mev=full.largest * MEV_PER_EV if full.count else None,
        n_entries_full=full.count,
    )


def _breakdown(
    groups: GroupedSums, columns: Sequence[NDArray], name: Callable[..., str]
) -> dict[str, GroupErrors]:
    """Error of each combination of values in `columns`, in ascending order."""
    rows, index = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return {
        name(*row): _group_errors(groups.select(index.ravel() == number))
        for number, row in enumerate(rows.tolist())
    }


def _pair_name(*codes: int) -> str:
    first, second = (Species(code // 2, bool(code % 2)) for code in codes)
    return pair_label(first, second)


def _region_name(*codes: int) -> str:
    labels = [Region(code - 1).label for code in codes]
    return labels[0] if labels[0] == labels[1] else "/".join(labels)


def _largest(worst: Largest) -> LargestEntry:
    i, j, *shift = (-index for index in worst.block)
    return LargestEntry(
        error_mev=worst.error_ev * MEV_PER_EV,
        device=worst.device,
        sites=(i, j),
        shift=(shift[0], shift[1], shift[2]),
        pair=worst.pair,
        distance_ang=worst.distance_ang,
    )
