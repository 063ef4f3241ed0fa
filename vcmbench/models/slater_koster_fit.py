"""Fit of the Slater–Koster model: one pass over the training blocks, then small linear solves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, Slab
from vcmbench.harmonics import rotate_blocks
from vcmbench.models.fitting import common_basis
from vcmbench.models.radial import decay
from vcmbench.models.ridge import NormalEquations, SignedPermutation, mirror
from vcmbench.models.slater_koster import (
    BondCoefficients,
    Bonds,
    Pair,
    Settings,
    SiteCoefficients,
    SlaterKoster,
    chunks,
    site_densities,
)
from vcmbench.models.symmetry import BondTensors, SiteTensors
from vcmbench.structure import FloatArray


def fit_slater_koster(
    hamiltonians: Sequence[BlockMatrix], settings: Settings | None = None
) -> SlaterKoster:
    """Fit to all blocks of the given Hamiltonians.

    Both directions of a bond carry the same information; between sites of one species both
    enter, so that the fitted integrals, and with them H, do not depend on which comes first.

    Parameters
    ----------
    hamiltonians : sequence of BlockMatrix
        Half-stored training data in the Fermi gauge, eV, over the whole cutoff.
    settings : Settings, optional
        Choices of the fit.

    Returns
    -------
    SlaterKoster
        The model.

    Raises
    ------
    VcmbenchError
        If there is no data, or a species has different shells in two of them.
    """
    settings = settings or Settings()
    basis = common_basis(hamiltonians)
    sites = {species: _SiteFit(species, basis, settings) for species in basis.species}
    bonds = {
        pair: _BondFit(pair, basis, settings)
        for pair in combinations_with_replacement(basis.species, 2)
    }
    for matrix in hamiltonians:
        densities = site_densities(matrix.pattern.structure, basis, settings)
        for slab in matrix.pattern.slabs:
            if slab.species_i == slab.species_j:
                sites[slab.species_i].add(matrix, slab, densities)
            bonds[slab.species_i, slab.species_j].add(matrix, slab, densities)
    return SlaterKoster(
        basis,
        settings,
        {species: fit.solve() for species, fit in sites.items()},
        {pair: fit.solve() for pair, fit in bonds.items() if fit.has_data},
    )


class _SiteFit:
    """Normal equations of the on-site blocks of one species, one set per degree."""

    def __init__(self, species: Species, basis: OrbitalBasis, settings: Settings) -> None:
        tensors = SiteTensors(basis.shells_of(species)).by_degree
        self._tensors = {d: t for d, t in tensors.items() if d <= settings.degree}
        self._penalty = settings.site_penalty
        n_densities = settings.n_densities(basis)
        self._equations = {
            degree: NormalEquations.zeros(n_densities + (degree == 0), len(tensor))
            for degree, tensor in self._tensors.items()
        }

    def add(self, matrix: BlockMatrix, slab: Slab, densities: list[FloatArray]) -> None:
        """Add the on-site blocks of a slab."""
        is_onsite = matrix.pattern.is_onsite[slab.blocks]
        blocks = matrix.slab(slab)[is_onsite]
        sites = matrix.pattern.pair[slab.blocks][is_onsite, 0]
        for degree, tensors in self._tensors.items():
            targets = np.tensordot(blocks, tensors, axes=((1, 2), (2, 3)))
            features = densities[degree][sites]
            if degree == 0:
                features = np.concatenate([np.ones((len(sites), 1, 1)), features], axis=2)
            self._equations[degree].add(
                features.reshape(-1, features.shape[2]),
                targets.transpose(0, 2, 1).reshape(-1, len(tensors)),
            )

    def solve(self) -> SiteCoefficients:
        """Coefficients of the species."""
        field = {}
        for degree, equations in self._equations.items():
            penalty = np.full(len(equations.gram), self._penalty)
            if degree == 0:
                penalty[0] = 0
            field[degree] = equations.solve(np.diag(penalty))
        return SiteCoefficients(field[0][0], {**field, 0: field[0][1:]})


class _BondFit:
    """Normal equations of the bonds of one species pair, one set per order."""

    def __init__(self, pair: Pair, basis: OrbitalBasis, settings: Settings) -> None:
        self.has_data = False
        self._settings = settings
        self._tensors = BondTensors(*map(basis.shells_of, pair))
        self._is_symmetric = pair[0] == pair[1]
        self._layouts = {
            order: _Layout(
                settings.n_two_centre if order == 0 else 0,
                settings.n_response,
                settings.degree - order + 1,
                settings.n_densities(basis),
                order,
            )
            for order in self._tensors.by_order
            if order <= settings.degree
        }
        self._equations = {
            order: NormalEquations.zeros(layout.n_features, len(self._tensors.by_order[order]))
            for order, layout in self._layouts.items()
        }

    def add(self, matrix: BlockMatrix, slab: Slab, densities: list[FloatArray]) -> None:
        """Add the bonds of a slab."""
        pattern, blocks = matrix.pattern, matrix.slab(slab)
        in_range = pattern.distance[slab.blocks] < self._settings.cutoff_ang
        for chunk in chunks(np.flatnonzero(in_range & ~pattern.is_onsite[slab.blocks])):
            self.has_data = True
            self._add_bonds(
                Bonds(pattern, densities, slab.blocks.start + chunk, self._settings), blocks[chunk]
            )

    def _add_bonds(self, bonds: Bonds, blocks: FloatArray) -> None:
        to_frame = bonds.frames.transpose(0, 2, 1)
        shells_i, shells_j = self._tensors.shells_i, self._tensors.shells_j
        framed = rotate_blocks(blocks, shells_i, shells_j, to_frame)
        framed /= decay(bonds.distance)[:, None, None]
        near = bonds.is_near
        splines = self._settings.two_centre(bonds.distance)
        radial = self._settings.response(bonds.distance[near])
        for order, equations in self._equations.items():
            tensors = self._tensors.by_order[order]
            targets = np.tensordot(framed, tensors, axes=((1, 2), (2, 3))).transpose(0, 2, 1)
            features = bonds.features(order)[:, :, None, :] * radial[:, None, :, None]
            features = features.reshape(-1, radial.shape[1] * features.shape[3])
            if order == 0:
                equations.add(splines[~near], targets[~near, 0])
                features = np.concatenate([splines[near], features], axis=1)
            equations.add(features, targets[near].reshape(-1, len(tensors)))

    def solve(self) -> BondCoefficients:
        """Coefficients of the pair."""
        found = {order: self._solve_order(order) for order in self._layouts}
        n_two_centre = self._settings.n_two_centre
        response = {**found, 0: found[0][n_two_centre:]}
        return BondCoefficients(
            found[0][:n_two_centre],
            {
                order: weights.reshape(self._settings.n_response, -1, weights.shape[1])
                for order, weights in response.items()
            },
        )

    def _solve_order(self, order: int) -> FloatArray:
        layout, equations = self._layouts[order], self._equations[order]
        if not self._is_symmetric:
            return equations.solve(self._penalty(layout))
        features = layout.reversed_bond()
        channels = SignedPermutation(*self._tensors.mirrored(order))
        equations.add_mirrored(features, channels)
        coefficients = equations.solve(self._penalty(layout))
        # The solution is its own mirror image up to rounding; make it so exactly.
        return 0.5 * (coefficients + mirror(coefficients, features, channels))

    def _penalty(self, layout: _Layout) -> FloatArray:
        settings, n = self._settings, layout.n_two_centre
        penalty = np.diag(np.full(layout.n_features, settings.response_penalty))
        if n:
            curvature = np.diff(np.eye(n), 2, axis=0)
            penalty[:n, :n] = (
                settings.two_centre_penalty * np.eye(n)
                + settings.two_centre_roughness * curvature.T @ curvature
            )
        return penalty


@dataclass(frozen=True)
class _Layout:
    """Order of the features of one order m: V, then W by spline, end, degree and density."""

    n_two_centre: int
    n_response: int
    n_degrees: int
    n_densities: int
    order: int

    @property
    def n_features(self) -> int:
        return self.n_two_centre + 2 * self.n_response * self.n_degrees * self.n_densities

    def reversed_bond(self) -> SignedPermutation:
        """Features of the bond seen from its other end.

        The ends change places, and the frame turns by π about its y axis, which multiplies
        densities of degree l by (-1)^l (sines by -1 more, as in the block itself).
        """
        shape = (self.n_response, 2, self.n_degrees, self.n_densities)
        index = np.arange(np.prod(shape)).reshape(shape)[:, ::-1].ravel()
        parity = (-1.0) ** (self.order + np.arange(self.n_degrees))
        sign = np.broadcast_to(parity[:, None], shape).ravel()
        n = self.n_two_centre
        return SignedPermutation(
            np.concatenate([np.arange(n), n + index]), np.concatenate([np.ones(n), sign])
        )
