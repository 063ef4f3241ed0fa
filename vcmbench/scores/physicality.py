"""Symmetries that a Hamiltonian model must not break, measured by applying them to its input.

Each residual compares the prediction for a transformed structure with the transformed prediction,
relative to its largest entry. A cut-out of a device is enough: equivariance is a property of the
model and needs no physical structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.harmonics import rotate_matrix
from vcmbench.scores.result import (
    Equivariance,
    Hermiticity,
    PhysicalitySection,
    Residual,
    Unavailable,
)
from vcmbench.structure import FloatArray, IntArray, Structure

CUTOUT_SITES: Final = 100
"""Largest number of sites of the cut-out."""

CUTOUT_GAP_ANG: Final = 2.5
"""Space between a cut-out and its image along x (Å): no two sites come unphysically close."""

Predict = Callable[[Structure], BlockMatrix]


def cut_out(structure: Structure, max_sites: int = CUTOUT_SITES) -> Structure:
    """Slab normal to the first cell vector with as many species as possible.

    Parameters
    ----------
    structure : Structure
        A device or a bulk cell.
    max_sites : int
        Number of sites to keep; smaller structures are returned as they are.

    Returns
    -------
    Structure
        Consecutive sites along the first cell vector, periodic with that vector shortened to
        their extent and `CUTOUT_GAP_ANG`.
    """
    if structure.n_sites <= max_sites:
        return structure
    fraction = (structure.positions @ np.linalg.inv(structure.cell))[:, 0]
    wrapped = fraction % 1.0
    order = np.argsort(wrapped, kind="stable")
    is_species = structure.species_index[order, None] == np.arange(len(structure.species_list))
    seen = np.concatenate([np.zeros((1, is_species.shape[1])), np.cumsum(is_species, axis=0)])
    n_species = (seen[max_sites:] > seen[:-max_sites]).sum(axis=1)
    best = np.flatnonzero(n_species == n_species.max())
    start = int(best[len(best) // 2])
    sites = np.sort(order[start : start + max_sites])
    positions = structure.positions + (wrapped - fraction)[:, None] * structure.cell[0]
    length = np.linalg.norm(structure.cell[0])
    cell = structure.cell.copy()
    cell[0] *= np.ptp(wrapped[sites]) + CUTOUT_GAP_ANG / length
    return replace(structure.moved(positions).permuted(sites), cell=cell)


def equivariance(
    predict: Predict, device: str, structure: Structure, seed: int = 0
) -> Equivariance:
    """Equivariance residuals of a model.

    Parameters
    ----------
    predict : callable
        The model: Structure to BlockMatrix.
    device : str
        Id of the device the structure was cut from.
    structure : Structure
        Structure to be transformed, best from `cut_out`.
    seed : int
        Seed of the random operations.

    Returns
    -------
    Equivariance
    """
    rng = np.random.default_rng(seed)
    base = predict(structure).directed()
    sites = np.arange(structure.n_sites)
    stay = np.zeros((structure.n_sites, 3), np.int64)
    rotation = Rotation.random(rng=rng).as_matrix()
    order = rng.permutation(structure.n_sites)
    permuted = structure.permuted(order)
    moves = rng.integers(-1, 2, (structure.n_sites, 3)) * structure.pbc
    reimaged = structure.moved(structure.positions + moves @ structure.cell)
    shifted = structure.moved(structure.positions + rng.normal(scale=3.0, size=3))

    def turned(operation: FloatArray) -> Residual:
        found = predict(structure.transformed(operation))
        return residual(rotate_matrix(base, operation), found)

    return Equivariance(
        rotation=turned(rotation),
        inversion=turned(-np.eye(3)),
        permutation=residual(relabel(base, permuted, np.argsort(order), stay), predict(permuted)),
        translation=residual(base, predict(shifted)),
        reimaging=residual(relabel(base, reimaged, sites, moves), predict(reimaged)),
        n_sites=structure.n_sites,
        device=device,
        seed=seed,
    )


def relabel(
    matrix: BlockMatrix, structure: Structure, place: IntArray, moves: IntArray
) -> BlockMatrix:
    """Express the same operator with sites renumbered and moved by lattice vectors.

    Parameters
    ----------
    matrix : BlockMatrix
        A directed operator.
    structure : Structure
        The structure after the change.
    place : (n_sites,) int
        New number of each site.
    moves : (n_sites, 3) int
        Lattice vectors by which each (old) site was moved: R becomes R + n_i − n_j.

    Returns
    -------
    BlockMatrix
        Directed, on a pattern of `structure`.
    """
    old = matrix.pattern
    pair, shift = place[old.pair], old.shift + moves[old.pair[:, 0]] - moves[old.pair[:, 1]]
    species = structure.species_index[pair]
    order = np.lexsort((*shift.T[::-1], *pair.T[::-1], *species.T[::-1]))
    pattern = BlockPattern(
        structure,
        old.basis,
        pair[order].astype(np.int32),
        shift[order].astype(np.int32),
        directed=True,
    )
    values = np.empty_like(matrix.values)
    # Sites keep their species, so every slab is a permutation of itself.
    for slab in old.slabs:
        within = order[slab.blocks] - slab.blocks.start
        values[slab.entries] = matrix.slab(slab)[within].ravel()
    return BlockMatrix(pattern, values)


def residual(expected: BlockMatrix, found: BlockMatrix) -> Residual:
    """Difference of two predictions for one structure.

    Parameters
    ----------
    expected : BlockMatrix
        Transformed prediction, directed.
    found : BlockMatrix
        Prediction for the transformed structure; a block that only one of them has counts as
        zero in the other.

    Returns
    -------
    Residual
        Relative to the largest entry of `expected`.
    """
    both = found.directed()
    extra = both.select(~expected.pattern.locate(both.pattern).found)
    difference = np.concatenate(
        [both.align(expected.pattern).values - expected.values, extra.values]
    )
    scale = np.abs(expected.values).max(initial=np.finfo(np.float64).tiny)
    size = np.abs(difference) / scale
    return Residual(
        largest=float(size.max(initial=0.0)), mean=float(size.mean()) if size.size else 0.0
    )


def section(
    hermiticity: Sequence[Hermiticity], equivariance: Equivariance | Unavailable
) -> PhysicalitySection:
    """Put the section together.

    Parameters
    ----------
    hermiticity : sequence of Hermiticity
        Residual of each device's prediction.
    equivariance : Equivariance or Unavailable
        From `equivariance`, or why there is none.

    Returns
    -------
    PhysicalitySection
    """
    return PhysicalitySection(
        hermiticity=Hermiticity(
            largest_mev=max(h.largest_mev for h in hermiticity),
            mean_mev=max(h.mean_mev for h in hermiticity),
        ),
        equivariance=equivariance,
    )
