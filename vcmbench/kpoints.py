"""Monkhorst–Pack meshes, reduced by time reversal."""

from __future__ import annotations

import numpy as np

from vcmbench.structure import FloatArray


def monkhorst_pack(mesh: tuple[int, int, int]) -> tuple[FloatArray, FloatArray]:
    """Wave vectors of a Monkhorst–Pack mesh up to k ≡ −k.

    Parameters
    ----------
    mesh : (3,) int
        Points along each reciprocal vector.

    Returns
    -------
    kpoints : (n_k, 3) float
        Fractional wave vectors (2i − n − 1)/2n, one of each pair ±k.
    weights : (n_k,) float
        Weights, summing to one.

    References
    ----------
    H. J. Monkhorst, J. D. Pack, Phys. Rev. B 13, 5188 (1976).
    """
    axes = [(2 * np.arange(1, n + 1) - n - 1) / (2 * n) for n in mesh]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    # The point whose first non-zero component is positive stands for both.
    representative = np.where(_is_negative(points)[:, None], -points, points) + 0.0
    _, first, counts = np.unique(
        representative.round(12), axis=0, return_index=True, return_counts=True
    )
    return representative[first], counts / counts.sum()


def _is_negative(points: FloatArray) -> np.ndarray:
    first = np.take_along_axis(points, (points != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    return first < 0
