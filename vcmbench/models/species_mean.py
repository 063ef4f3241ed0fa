"""Species means: what is known of a block from the species and the distance of its sites alone.

On-site blocks are the mean over the sites of a species of what is the same in every orientation
(each shell's level, and couplings of shells of equal l). Other blocks are the mean over a species
pair and a distance shell of the two-centre integrals, turned into the direction of the bond.
Equivariant exactly, but with steps where a pair crosses from one shell to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from vcmbench.basis import OrbitalBasis, Species, pair_label
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import SUPPORT_ANG
from vcmbench.harmonics import bond_frames, rotate_blocks
from vcmbench.models.fitting import common_basis
from vcmbench.models.interface import require_known_species
from vcmbench.models.symmetry import BondTensors, SiteTensors
from vcmbench.models.weights import WEIGHTS, BasisRecord, read_weights, write_weights
from vcmbench.structure import FloatArray, IntArray, Structure


class Shells(BaseModel):
    """Distance shells."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cutoff_ang: PositiveFloat = SUPPORT_ANG
    """Outer end of the last shell, Å."""
    n_shells: PositiveInt = 48
    """Number of shells of equal width."""

    def of(self, distance_ang: FloatArray) -> IntArray:
        """(n,) shell of each distance."""
        shell = (distance_ang / self.cutoff_ang * self.n_shells).astype(np.int64)
        return np.minimum(shell, self.n_shells - 1)


@dataclass(frozen=True)
class SpeciesMean:
    """A fitted model.

    Parameters
    ----------
    basis : OrbitalBasis
        Orbitals of the species it knows.
    shells : Shells
        Distance shells.
    sites : mapping of Species to (n_channels,) float
        Mean on-site channels of degree 0, eV.
    bonds : mapping of pair to (n_shells, n_channels) float
        Mean two-centre channels by shell, eV; shells without training data are zero.
    """

    basis: OrbitalBasis
    shells: Shells
    sites: Mapping[Species, FloatArray]
    bonds: Mapping[tuple[Species, Species], FloatArray]

    @property
    def cutoff_ang(self) -> float:
        """Range of the predicted blocks, Å."""
        return self.shells.cutoff_ang

    @property
    def n_parameters(self) -> int:
        """Number of means."""
        return sum(array.size for array in self.arrays().values())

    def predict(self, structure: Structure) -> BlockMatrix:
        """Hamiltonian of a structure in the Fermi gauge, eV, half stored.

        Raises
        ------
        VcmbenchError
            If a species is unknown.
        """
        return self.predict_within(structure, self.cutoff_ang)

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        """Predict only the blocks of sites closer than `cutoff_ang` (Å)."""
        require_known_species("species-mean", structure, self.basis)
        pattern = BlockPattern.from_structure(
            structure, self.basis, min(cutoff_ang, self.cutoff_ang)
        )
        matrix = BlockMatrix.zeros(pattern)
        for slab in pattern.slabs:
            blocks, pair = matrix.slab(slab), (slab.species_i, slab.species_j)
            is_onsite = pattern.is_onsite[slab.blocks]
            if is_onsite.any():
                tensors = SiteTensors(self.basis.shells_of(pair[0])).by_degree[0]
                blocks[is_onsite] = np.einsum("c,cMab->ab", self.sites[pair[0]], tensors)
            bond = BondTensors(*map(self.basis.shells_of, pair))
            off_site = np.flatnonzero(~is_onsite)
            where = slab.blocks.start + off_site
            channels = self.bonds[pair][self.shells.of(pattern.distance[where])]
            framed = np.einsum("nc,csab->nab", channels, bond.by_order[0])
            frames = bond_frames(pattern.vector[where])
            blocks[off_site] = rotate_blocks(framed, bond.shells_i, bond.shells_j, frames)
        return matrix

    def save(self, directory: Path) -> None:
        """Write the weights into a model directory; equal models give equal bytes."""
        metadata = Metadata(
            format="species-mean-1", basis=BasisRecord.of(self.basis), shells=self.shells
        )
        write_weights(directory / WEIGHTS, self.arrays(), metadata)

    def arrays(self) -> dict[str, FloatArray]:
        """Means by name, as stored."""
        return {f"site/{species.label}": mean for species, mean in self.sites.items()} | {
            f"bond/{pair_label(*pair)}": means for pair, means in self.bonds.items()
        }


class Metadata(BaseModel):
    """What the weights file says beside the means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["species-mean-1"]
    basis: BasisRecord
    shells: Shells


def load(directory: Path) -> SpeciesMean:
    """Load the model of a model directory.

    Raises
    ------
    VcmbenchError
        If the weights are missing, damaged or of another format.
    """
    arrays, metadata = read_weights(directory / WEIGHTS, Metadata)
    basis, shells = metadata.basis.to_basis(), metadata.shells
    sites = {}
    for species in basis.species:
        n_channels = len(SiteTensors(basis.shells_of(species)).by_degree[0])
        sites[species] = arrays.take(f"site/{species.label}", (n_channels,))
    bonds = {}
    for pair in combinations_with_replacement(basis.species, 2):
        n_channels = len(BondTensors(*(basis.shells_of(s) for s in pair)).by_order[0])
        bonds[pair] = arrays.take(f"bond/{pair_label(*pair)}", (shells.n_shells, n_channels))
    return SpeciesMean(basis, shells, sites, bonds)


def fit_species_mean(
    hamiltonians: Sequence[BlockMatrix], shells: Shells | None = None
) -> SpeciesMean:
    """Average over all blocks of the given Hamiltonians.

    Parameters
    ----------
    hamiltonians : sequence of BlockMatrix
        Half-stored training data in the Fermi gauge, eV.
    shells : Shells, optional
        Distance shells.

    Returns
    -------
    SpeciesMean

    Raises
    ------
    VcmbenchError
        If there is no data, or a species has different shells in two of them.
    """
    shells = shells or Shells()
    basis = common_basis(hamiltonians)
    sites = {s: _Mean(1, SiteTensors(basis.shells_of(s)).by_degree[0]) for s in basis.species}
    bonds = {
        pair: _Mean(shells.n_shells, BondTensors(*map(basis.shells_of, pair)).by_order[0])
        for pair in combinations_with_replacement(basis.species, 2)
    }
    for matrix in hamiltonians:
        pattern = matrix.pattern
        for slab in pattern.slabs:
            blocks, pair = matrix.slab(slab), (slab.species_i, slab.species_j)
            is_onsite = pattern.is_onsite[slab.blocks]
            n_onsite = int(is_onsite.sum())
            if n_onsite:
                sites[pair[0]].add(np.zeros(n_onsite, np.int64), blocks[is_onsite])
            near = ~is_onsite & (pattern.distance[slab.blocks] < shells.cutoff_ang)
            where = slab.blocks.start + np.flatnonzero(near)
            to_frame = bond_frames(pattern.vector[where]).transpose(0, 2, 1)
            shells_i, shells_j = map(basis.shells_of, pair)
            framed = rotate_blocks(blocks[near], shells_i, shells_j, to_frame)
            bonds[pair].add(shells.of(pattern.distance[where]), framed)
    return SpeciesMean(
        basis,
        shells,
        {species: mean.value[0] for species, mean in sites.items()},
        {pair: _symmetric(pair, basis, mean.value) for pair, mean in bonds.items()},
    )


class _Mean:
    """Mean channels by shell."""

    def __init__(self, n_shells: int, tensors: FloatArray) -> None:
        self._tensors = tensors[:, 0]
        self._sum = np.zeros((n_shells, len(tensors)))
        self._count = np.zeros(n_shells)

    def add(self, shell: IntArray, blocks: FloatArray) -> None:
        """Add blocks of the given shells."""
        np.add.at(self._sum, shell, np.einsum("nab,cab->nc", blocks, self._tensors))
        np.add.at(self._count, shell, 1)

    @property
    def value(self) -> FloatArray:
        """(n_shells, n_channels) means; zero where nothing was added."""
        return self._sum / np.maximum(self._count, 1)[:, None]


def _symmetric(pair: tuple[Species, Species], basis: OrbitalBasis, means: FloatArray) -> FloatArray:
    """Average over both directions of the bond, between sites of one species."""
    if pair[0] != pair[1]:
        return means
    channel, sign = BondTensors(*map(basis.shells_of, pair)).mirrored(0)
    return 0.5 * (means + sign * means[:, channel])
