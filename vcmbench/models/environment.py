"""Neighbour densities of sites: what a site sees around it, as spherical tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np
import scipy.sparse

from vcmbench.basis import Species
from vcmbench.blocks import BlockPattern
from vcmbench.harmonics import real_harmonics
from vcmbench.models.radial import SplineBasis
from vcmbench.structure import FloatArray


def neighbour_densities(
    pattern: BlockPattern, species: Sequence[Species], radial: SplineBasis, degree: int
) -> list[FloatArray]:
    """Sum over neighbours A_lm = Σ_j R_n(r_ij) √(4π) Y_lm(r̂_ij), by the neighbours' species.

    They vary smoothly as a neighbour crosses the cutoff, and rotate like shells of degree l.

    Parameters
    ----------
    pattern : BlockPattern
        Holds every pair of sites within the cutoff of `radial`.
    species : sequence of Species
        Species told apart, all that occur among them.
    radial : SplineBasis
        Radial functions R_n.
    degree : int
        Highest l.

    Returns
    -------
    list of (n_sites, 2l + 1, n_species * n_radial) float
        One array per l = 0 .. `degree`.
    """
    structure = pattern.structure
    near = (pattern.distance < radial.stop_ang) & ~pattern.is_onsite
    i, j = pattern.pair[near].T
    centre, neighbour = np.concatenate([i, j]), np.concatenate([j, i])
    vector = np.concatenate([pattern.vector[near], -pattern.vector[near]])
    functions = radial(np.tile(pattern.distance[near], 2))
    kind = np.array([species.index(s) for s in structure.species_list])
    n_edges, shape = len(centre), (structure.n_sites, len(species))
    gather = scipy.sparse.csr_array(
        (
            np.ones(n_edges),
            (centre * len(species) + kind[structure.species_index[neighbour]], np.arange(n_edges)),
        ),
        shape=(shape[0] * shape[1], n_edges),
    )
    densities = []
    for l in range(degree + 1):
        n_parts = 2 * l + 1
        harmonics = sqrt(4 * pi) * real_harmonics(l, vector)
        terms = harmonics[:, :, None] * functions[:, None, :]
        sums = (gather @ terms.reshape(n_edges, n_parts * radial.n_functions)).reshape(
            *shape, n_parts, radial.n_functions
        )
        densities.append(sums.transpose(0, 2, 1, 3).reshape(shape[0], n_parts, -1))
    return densities
