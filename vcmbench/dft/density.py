"""Density matrix of a Hamiltonian: what an SCF can start from instead of free atoms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from vcmbench.blocks import BlockMatrix
from vcmbench.errors import VcmbenchError
from vcmbench.kpoints import monkhorst_pack
from vcmbench.structure import FloatArray
from vcmbench.units import BOLTZMANN_EV_PER_K


def density_matrix(
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    *,
    n_electrons: int,
    kpoint_mesh: tuple[int, int, int],
    temperature_k: float,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> BlockMatrix:
    """Density matrix P_ij(R) of the bands of H, filled with electrons.

    P(R) = Σ_k w_k P(k) exp(−2πi k·R) with P(k) = 2 C f C†, so that Σ_R tr P(R) S(R)ᵀ counts the
    electrons. The level of the electrons is found here: the gauge of H does not matter.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        H (eV) and S, half stored, of the same sites.
    n_electrons : int
        Electrons to fill in.
    kpoint_mesh : (3,) int
        Monkhorst–Pack mesh.
    temperature_k : float
        Fermi–Dirac temperature, K.
    progress : callable
        Called with the finished and all k-points.

    Returns
    -------
    BlockMatrix
        P on the pattern of `overlap`.

    Raises
    ------
    VcmbenchError
        If the basis cannot hold so many electrons.
    """
    kpoints, weights = monkhorst_pack(kpoint_mesh)
    n_orbitals = overlap.pattern.n_orbitals
    if n_electrons > 2 * n_orbitals:
        raise VcmbenchError(
            f"density: found {n_electrons} electrons, expected at most {2 * n_orbitals} "
            f"in {n_orbitals} orbitals"
        )
    bands = []
    for done, kpoint in enumerate(kpoints):
        progress(done, len(kpoints))
        h, s = (matrix.to_csr(kpoint).toarray() for matrix in (hamiltonian, overlap))
        bands.append(scipy.linalg.eigh(h, s, driver="gvd", overwrite_a=True, overwrite_b=True))
    progress(len(kpoints), len(kpoints))
    occupation = _occupations([levels for levels, _ in bands], weights, n_electrons, temperature_k)

    pattern = overlap.pattern
    rows, columns = overlap.entry_orbitals()
    sizes = np.diff(pattern.offset)
    values = np.zeros(pattern.n_entries)
    for kpoint, weight, (_, states), filling in zip(
        kpoints, weights, bands, occupation, strict=True
    ):
        dense = (states * filling) @ states.conj().T
        phase = np.exp(-2j * np.pi * (pattern.shift @ kpoint))
        values += weight * (dense[rows, columns] * np.repeat(phase, sizes)).real
    return BlockMatrix(pattern, values)


def vacated(
    density: BlockMatrix, overlap: BlockMatrix, sites: NDArray[np.integer], n_electrons: int
) -> BlockMatrix:
    """Take electrons off sites: the density of a device from that of one with more oxygen.

    The orbitals of each site are scaled so that just `n_electrons` leave it. In a long narrow
    cell nothing less will do: a tenth of an electron too many, spread over the cross-section, is a
    field of tenths of a volt per Å through the whole device, and the SCF runs away.

    Parameters
    ----------
    density, overlap : BlockMatrix
        P and S on one pattern.
    sites : (n,) int
        Sites that become ghosts.
    n_electrons : int
        Valence electrons of the atom that leaves each.

    Returns
    -------
    BlockMatrix
        P with n·`n_electrons` electrons fewer.

    Raises
    ------
    VcmbenchError
        If a site holds fewer.
    """
    pattern = density.pattern
    i, j = pattern.pair.T
    sizes = np.diff(pattern.offset)
    values = density.values.copy()
    for site in sites:
        own = pattern.is_onsite & (i == site)
        both = (i == site) & (j == site) & ~own
        one = ((i == site) | (j == site)) & ~own & ~both
        shared = pattern.weight * np.add.reduceat(values * overlap.values, pattern.offset[:-1])
        # With amplitude a the electrons of the site's blocks are a² squared + a linear.
        squared, linear = shared[own | both].sum(), shared[one].sum()
        wanted = squared + linear - n_electrons
        if wanted < 0:
            raise VcmbenchError(
                f"density: site {site}: found {squared + linear:.2f} electrons, "
                f"expected at least the {n_electrons} that leave"
            )
        amplitude = (np.sqrt(linear**2 + 4 * squared * wanted) - linear) / (2 * squared)
        factor = np.where(one, amplitude, np.where(own | both, amplitude**2, 1.0))
        values *= np.repeat(factor, sizes)
    return BlockMatrix(pattern, values)


def electrons(density: BlockMatrix, overlap: BlockMatrix) -> float:
    """Count the electrons of a density, Σ_R tr P(R) S(R)ᵀ over both directions of every block."""
    weight = np.repeat(density.pattern.weight, np.diff(density.pattern.offset))
    return float((weight * density.values * overlap.align(density.pattern).values).sum())


def _occupations(
    levels: list[FloatArray], weights: FloatArray, n_electrons: int, temperature_k: float
) -> list[FloatArray]:
    """Electrons in each level of each k-point, spin included."""
    width = max(temperature_k * BOLTZMANN_EV_PER_K, 1e-6)

    def filling(mu: float) -> list[FloatArray]:
        return [2 * expit((mu - energies) / width) for energies in levels]

    def excess(mu: float) -> float:
        return float(weights @ [f.sum() for f in filling(mu)] - n_electrons)

    lowest = min(energies[0] for energies in levels) - 50 * width
    highest = max(energies[-1] for energies in levels) + 50 * width
    return filling(float(brentq(excess, lowest, highest, xtol=1e-10)))
