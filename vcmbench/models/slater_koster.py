"""Slater–Koster tight binding: integrals that depend on distance and respond to the neighbours.

The block of a bond, in the frame of the bond, is

    H_c(i, j) = D(r) [ V_c(r) + Σ_e∈{i,j} Σ_k W_ck(r) A_k(e) ],

where V are the two-centre integrals (order m = 0 only: ssσ, spσ, ppσ, ppπ, ...) and A are the
neighbour densities of either end in the same frame: the integrals respond linearly to what
surrounds the bond, with the selection rule that a density of order m acts on entries of order m.
V and W are splines that vanish at their cutoffs, D is a common decay. On-site blocks are constant
levels plus a linear response to the site's own densities (the crystal field). Everything is linear
in the coefficients, so that the fit is closed-form, and exactly equivariant; ghosts are a species.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from vcmbench.basis import OrbitalBasis, Species, pair_label
from vcmbench.blocks import BlockMatrix, BlockPattern, Slab
from vcmbench.device import SUPPORT_ANG
from vcmbench.harmonics import bond_frames, rotate_blocks, wigner_d
from vcmbench.models.environment import neighbour_densities
from vcmbench.models.interface import require_known_species
from vcmbench.models.radial import SplineBasis, decay
from vcmbench.models.symmetry import BondTensors, SiteTensors
from vcmbench.models.weights import WEIGHTS, Arrays, BasisRecord, read_weights, write_weights
from vcmbench.structure import FloatArray, IntArray, Structure

CHUNK_BLOCKS: Final = 2048
"""Blocks worked on at once: bounds the memory, whatever the size of the structure."""

Pair = tuple[Species, Species]


class Settings(BaseModel):
    """What is chosen before the fit; stored with the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cutoff_ang: PositiveFloat = SUPPORT_ANG
    """V vanishes from here on, Å."""
    shortest_ang: PositiveFloat = 1.6
    """All splines are constant below, Å."""
    n_two_centre: PositiveInt = 26
    """Splines of V."""
    response_cutoff_ang: PositiveFloat = 9.0
    """W vanishes from here on, Å."""
    n_response: PositiveInt = 9
    """Splines of W."""
    neighbour_cutoff_ang: PositiveFloat = 4.5
    """Neighbours count up to here, Å."""
    n_neighbour: PositiveInt = 3
    """Splines of the neighbour densities, for each species of neighbour."""
    degree: PositiveInt = 4
    """Highest l of the neighbour densities: the highest that acts between d shells."""
    two_centre_penalty: PositiveFloat = 1e-5
    """Ridge of V."""
    two_centre_roughness: PositiveFloat = 1e-2
    """Penalty on second differences of V (Eilers and Marx, Stat. Sci. 11, 89 (1996))."""
    response_penalty: PositiveFloat = 0.3
    """Ridge of W."""
    level_penalty: PositiveFloat = 0.05
    """Ridge of the on-site response of degree 0: one datum per site and shell, so few."""
    crystal_field_penalty: PositiveFloat = 0.003
    """Ridge of the on-site response of higher degrees."""

    @property
    def two_centre(self) -> SplineBasis:
        """Distance dependence of V."""
        return SplineBasis(self.shortest_ang, self.cutoff_ang, self.n_two_centre)

    @property
    def response(self) -> SplineBasis:
        """Distance dependence of W."""
        return SplineBasis(self.shortest_ang, self.response_cutoff_ang, self.n_response)

    @property
    def neighbour(self) -> SplineBasis:
        """Radial functions of the neighbour densities."""
        return SplineBasis(self.shortest_ang, self.neighbour_cutoff_ang, self.n_neighbour)

    def n_densities(self, basis: OrbitalBasis) -> int:
        """Neighbour densities of each degree and m."""
        return len(basis.species) * self.n_neighbour

    def n_features(self, basis: OrbitalBasis, order: int) -> int:
        """Densities of both ends of a bond that act on entries of one order m."""
        return 2 * (self.degree - order + 1) * self.n_densities(basis)


@dataclass(frozen=True)
class BondCoefficients:
    """Coefficients of one species pair.

    Parameters
    ----------
    two_centre : (n_two_centre, n_channels) float
        V of the channels of order 0.
    response : mapping of order to (n_response, n_features, n_channels) float
        W of the channels of each order; features are ordered by end, degree, density.
    """

    two_centre: FloatArray
    response: Mapping[int, FloatArray]


@dataclass(frozen=True)
class SiteCoefficients:
    """On-site coefficients of one species.

    Parameters
    ----------
    levels : (n_channels,) float
        Constant terms of the channels of degree 0, eV.
    crystal_field : mapping of degree to (n_densities, n_channels) float
        Response to the densities of each degree, eV.
    """

    levels: FloatArray
    crystal_field: Mapping[int, FloatArray]


@dataclass(frozen=True)
class SlaterKoster:
    """A fitted model.

    Parameters
    ----------
    basis : OrbitalBasis
        Orbitals of the species it knows.
    settings : Settings
        Choices of the fit.
    sites : mapping of Species to SiteCoefficients
        On-site terms of every species of `basis`.
    bonds : mapping of pair to BondCoefficients
        Terms of each canonical species pair. A pair that no training structure held within the
        cutoff is absent and predicts zero.
    """

    basis: OrbitalBasis
    settings: Settings
    sites: Mapping[Species, SiteCoefficients] = field(repr=False)
    bonds: Mapping[Pair, BondCoefficients] = field(repr=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    @property
    def cutoff_ang(self) -> float:
        """Range of the predicted blocks, Å."""
        return self.settings.cutoff_ang

    @property
    def n_parameters(self) -> int:
        """Number of coefficients."""
        return sum(array.size for array in self.arrays().values())

    def predict(self, structure: Structure) -> BlockMatrix:
        """Hamiltonian of a structure in the Fermi gauge, eV.

        Parameters
        ----------
        structure : Structure
            Sites of species that the model knows.

        Returns
        -------
        BlockMatrix
            Half stored, all pairs of sites closer than `cutoff_ang`.

        Raises
        ------
        VcmbenchError
            If a species is unknown.
        """
        return self.predict_within(structure, self.cutoff_ang)

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        """Predict only the blocks of sites closer than `cutoff_ang` (Å)."""
        require_known_species("slater-koster", structure, self.basis)
        start = time.perf_counter()
        pattern = BlockPattern.from_structure(
            structure, self.basis, min(cutoff_ang, self.cutoff_ang)
        )
        listed = time.perf_counter()
        densities = site_densities(structure, self.basis, self.settings)
        seen = time.perf_counter()
        matrix = BlockMatrix.zeros(pattern)
        for slab in pattern.slabs:
            self._fill(matrix, slab, densities)
        self._seconds["neighbour list"] = listed - start
        self._seconds["neighbour densities"] = seen - listed
        self._seconds["blocks"] = time.perf_counter() - seen
        return matrix

    def stage_seconds(self) -> dict[str, float]:
        """Time that each stage of the latest prediction took, s."""
        return dict(self._seconds)

    def _fill(self, matrix: BlockMatrix, slab: Slab, densities: list[FloatArray]) -> None:
        """Write the blocks of one species pair."""
        pattern, blocks = matrix.pattern, matrix.slab(slab)
        is_onsite = pattern.is_onsite[slab.blocks]
        if is_onsite.any():
            sites = pattern.pair[slab.blocks][is_onsite, 0]
            blocks[is_onsite] = self._site_blocks(slab.species_i, densities, sites)
        pair = slab.species_i, slab.species_j
        if pair in self.bonds:
            for chunk in chunks(np.flatnonzero(~is_onsite)):
                bonds = Bonds(pattern, densities, slab.blocks.start + chunk, self.settings)
                blocks[chunk] = self._bond_blocks(pair, bonds)

    def _site_blocks(
        self, species: Species, densities: list[FloatArray], sites: IntArray
    ) -> FloatArray:
        """(n, n_orbitals, n_orbitals) on-site blocks."""
        tensors = SiteTensors(self.basis.shells_of(species)).by_degree
        coefficients = self.sites[species]
        level = np.einsum("c,cMab->ab", coefficients.levels, tensors[0])
        blocks = np.tile(level, (len(sites), 1, 1))
        for degree, weights in coefficients.crystal_field.items():
            components = densities[degree][sites] @ weights
            blocks += np.einsum("nMc,cMab->nab", components, tensors[degree], optimize=True)
        return 0.5 * (blocks + blocks.transpose(0, 2, 1))  # symmetric to the last bit

    def _bond_blocks(self, pair: Pair, bonds: Bonds) -> FloatArray:
        """(n, n_i, n_j) blocks of bonds between the species of `pair`."""
        shells_i, shells_j = (self.basis.shells_of(species) for species in pair)
        tensors = BondTensors(shells_i, shells_j).by_order
        coefficients = self.bonds[pair]
        integrals = self.settings.two_centre(bonds.distance) @ coefficients.two_centre
        framed = np.einsum("nc,csij->nij", integrals, tensors[0], optimize=True)
        radial = self.settings.response(bonds.distance[bonds.is_near])
        for order, weights in coefficients.response.items():
            # Contract the features first: the same for all splines, and one matrix product.
            partial = np.tensordot(bonds.features(order), weights, axes=(2, 1))
            components = np.einsum("nr,nsrc->nsc", radial, partial, optimize=True)
            framed[bonds.is_near] += np.tensordot(components, tensors[order], axes=((1, 2), (1, 0)))
        framed *= decay(bonds.distance)[:, None, None]
        return rotate_blocks(framed, shells_i, shells_j, bonds.frames)

    def save(self, directory: Path) -> None:
        """Write the weights into a model directory; equal models give equal bytes."""
        metadata = Metadata(
            format="slater-koster-1", basis=BasisRecord.of(self.basis), settings=self.settings
        )
        write_weights(directory / WEIGHTS, self.arrays(), metadata)

    def arrays(self) -> dict[str, FloatArray]:
        """Coefficients by name, as stored."""
        arrays = {}
        for species, site in self.sites.items():
            arrays[f"levels/{species.label}"] = site.levels
            for degree, weights in site.crystal_field.items():
                arrays[f"crystal_field/{species.label}/{degree}"] = weights
        for pair, bond in self.bonds.items():
            arrays[f"two_centre/{pair_label(*pair)}"] = bond.two_centre
            for order, weights in bond.response.items():
                arrays[f"response/{pair_label(*pair)}/{order}"] = weights
        return arrays


class Metadata(BaseModel):
    """What the weights file says beside the coefficients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["slater-koster-1"]
    basis: BasisRecord
    settings: Settings


def load(directory: Path) -> SlaterKoster:
    """Load the model of a model directory.

    Raises
    ------
    VcmbenchError
        If the weights are missing, damaged or of another format.
    """
    arrays, metadata = read_weights(directory / WEIGHTS, Metadata)
    basis, settings = metadata.basis.to_basis(), metadata.settings
    pairs = combinations_with_replacement(basis.species, 2)
    return SlaterKoster(
        basis,
        settings,
        {species: _read_site(arrays, basis, settings, species) for species in basis.species},
        {
            pair: _read_bond(arrays, basis, settings, pair)
            for pair in pairs
            if f"two_centre/{pair_label(*pair)}" in arrays
        },
    )


def _read_site(
    arrays: Arrays, basis: OrbitalBasis, settings: Settings, species: Species
) -> SiteCoefficients:
    tensors = SiteTensors(basis.shells_of(species)).by_degree
    n_densities = settings.n_densities(basis)
    return SiteCoefficients(
        arrays.take(f"levels/{species.label}", (len(tensors[0]),)),
        {
            degree: arrays.take(
                f"crystal_field/{species.label}/{degree}", (n_densities, len(tensors[degree]))
            )
            for degree in tensors
            if degree <= settings.degree
        },
    )


def _read_bond(
    arrays: Arrays, basis: OrbitalBasis, settings: Settings, pair: Pair
) -> BondCoefficients:
    tensors = BondTensors(*(basis.shells_of(species) for species in pair)).by_order
    name = pair_label(*pair)
    return BondCoefficients(
        arrays.take(f"two_centre/{name}", (settings.n_two_centre, len(tensors[0]))),
        {
            order: arrays.take(
                f"response/{name}/{order}",
                (settings.n_response, settings.n_features(basis, order), len(tensors[order])),
            )
            for order in tensors
            if order <= settings.degree
        },
    )


class Bonds:
    """Bonds seen in their own frames: what their blocks depend on.

    Parameters
    ----------
    pattern : BlockPattern
        Holds the bonds.
    densities : list of (n_sites, 2l + 1, n_densities) float
        Neighbour densities of all sites.
    blocks : (n_bonds,) int
        Blocks of `pattern`, none of them on-site.
    settings : Settings
        Choices of the fit.
    """

    def __init__(
        self,
        pattern: BlockPattern,
        densities: list[FloatArray],
        blocks: IntArray,
        settings: Settings,
    ) -> None:
        self.distance = pattern.distance[blocks]
        self.is_near: NDArray[np.bool_] = self.distance < settings.response_cutoff_ang
        self.frames = bond_frames(pattern.vector[blocks])
        to_frame = self.frames[self.is_near].transpose(0, 2, 1)
        first, second = pattern.pair[blocks][self.is_near].T
        self._framed: list[tuple[FloatArray, FloatArray]] = []
        for l, density in enumerate(densities):
            turn = wigner_d(l, to_frame)
            self._framed.append((turn @ density[first], turn @ density[second]))

    def features(self, order: int) -> FloatArray:
        """(n_near, 1 or 2, n_features) densities of order m, cosine and sine, of near bonds."""
        parts = [order, -order] if order else [0]
        return np.concatenate(
            [
                self._framed[l][end][:, [l + part for part in parts]]
                for end in (0, 1)
                for l in range(order, len(self._framed))
            ],
            axis=2,
        )


def site_densities(
    structure: Structure, basis: OrbitalBasis, settings: Settings
) -> list[FloatArray]:
    """Neighbour densities of all sites, one array per degree."""
    pattern = BlockPattern.from_structure(structure, basis, settings.neighbour_cutoff_ang)
    return neighbour_densities(pattern, basis.species, settings.neighbour, settings.degree)


def chunks(blocks: IntArray) -> Iterator[IntArray]:
    """Cut an array of blocks into pieces of at most `CHUNK_BLOCKS`."""
    for start in range(0, len(blocks), CHUNK_BLOCKS):
        yield blocks[start : start + CHUNK_BLOCKS]
