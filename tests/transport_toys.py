"""Small non-orthogonal two-terminal systems for the transport tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.structure import Region, Structure
from vcmbench.transport.lead import Lead, PrincipalLayer, surfaces
from vcmbench.transport.modes import mode_surfaces
from vcmbench.transport.negf import Contact


class Chain(NamedTuple):
    """A device between two different leads, contacts included in h and s."""

    h: np.ndarray
    s: np.ndarray
    left: PrincipalLayer
    right: PrincipalLayer

    @property
    def n(self) -> int:
        return len(self.left.h00)

    def contacts(self, energy: float, eta: float) -> tuple[Contact, Contact]:
        """Contacts with every eigenvalue of Gamma kept; by modes where nothing is broadened."""
        if not eta:
            return mode_surfaces(self.left, energy).left, mode_surfaces(self.right, energy).right
        return (
            surfaces(self.left, energy, eta, 0.0).left,
            surfaces(self.right, energy, eta, 0.0).right,
        )

    def csr(self) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
        return scipy.sparse.csr_array(self.h), scipy.sparse.csr_array(self.s)


def make_chain(
    *, n: int = 5, n_barrier: int = 6, height: float = 0.0, dtype: type = complex, seed: int = 0
) -> Chain:
    """Leads with wide bands about zero; the barrier's levels lie `height` eV above, unevenly."""
    rng = np.random.default_rng(seed)

    def block(scale: float) -> np.ndarray:
        values = rng.normal(size=(n, n)) * scale
        return values + 1j * rng.normal(size=(n, n)) * scale if dtype is complex else values

    def hermitian(scale: float) -> np.ndarray:
        values = block(scale)
        return 0.5 * (values + values.conj().T)

    def lead() -> PrincipalLayer:
        return PrincipalLayer(
            hermitian(0.3),
            np.eye(n) + block(0.1),
            np.eye(n) + hermitian(0.02),
            0.05 * np.eye(n) + block(0.01),
        )

    left, right = lead(), lead()
    on_h = [left.h00]
    on_s = [left.s00]
    to_h, to_s = [left.h01], [left.s01]
    for layer in range(n_barrier):
        on_s.append(np.eye(n) + hermitian(0.02))
        on_h.append(hermitian(0.3) + height * (1 + 0.5 * layer / n_barrier) * on_s[-1])
        to_h.append(0.8 * np.eye(n) + block(0.1))
        to_s.append(0.04 * np.eye(n) + block(0.01))
    on_h.append(right.h00)
    on_s.append(right.s00)
    return Chain(_tridiagonal(on_h, to_h), _tridiagonal(on_s, to_s), left, right)


def _tridiagonal(on: list[np.ndarray], to: list[np.ndarray]) -> np.ndarray:
    n = len(on[0])
    full = np.zeros((n * len(on),) * 2, dtype=complex)
    for i, block in enumerate(on):
        full[i * n : (i + 1) * n, i * n : (i + 1) * n] = block
    for i, block in enumerate(to):
        full[i * n : (i + 1) * n, (i + 1) * n : (i + 2) * n] = block
        full[(i + 1) * n : (i + 2) * n, i * n : (i + 1) * n] = block.conj().T
    return full


def dense_transmission(
    h: np.ndarray, s: np.ndarray, energy: float, left: Contact, right: Contact
) -> float:
    """Tr[Gamma_L G Gamma_R G^dagger] with the inverse of the whole device."""
    inverse = (energy * s - h).astype(complex)
    n_left, n_right = len(left.sigma), len(right.sigma)
    inverse[:n_left, :n_left] -= left.sigma
    inverse[-n_right:, -n_right:] -= right.sigma
    green = np.linalg.inv(inverse)[:n_left, -n_right:]
    gamma_left, gamma_right = (1j * (c.sigma - c.sigma.conj().T) for c in (left, right))
    return float(np.trace(gamma_left @ green @ gamma_right @ green.conj().T).real)


CUTOFF = 7.9
LEAD_CELL = np.diag([4.0, 4.2, 4.4])
LEAD_SITES = np.array([[0.0, 0.1, 0.2], [1.3, 2.2, 0.4], [2.6, 1.0, 3.1]])
NUMBERS = [22, 7, 22]
BASIS = OrbitalBasis("toy", {Species(7, False): (0,), Species(22, False): (0, 1)})


def _decaying(pattern: BlockPattern, scale: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=pattern.n_entries)
    return values * np.repeat(scale * np.exp(-pattern.distance / 1.5), np.diff(pattern.offset))


def make_lead(seed: int = 0) -> Lead:
    """Three sites of two species with random decaying blocks: no symmetry but translation."""
    structure = Structure.create(NUMBERS, LEAD_SITES, LEAD_CELL)
    pattern = BlockPattern.from_structure(structure, BASIS, CUTOFF)
    h = BlockMatrix(pattern, _decaying(pattern, 4.0, seed)).symmetrise()[0]
    s = BlockMatrix(pattern, _decaying(pattern, 0.15, seed + 1)).symmetrise()[0]
    diagonal = np.concatenate(
        [
            (np.eye(i, j) * onsite).ravel()
            for (i, j), onsite in zip(
                pattern.site_orbitals[pattern.pair], pattern.is_onsite, strict=True
            )
        ]
    )
    return Lead(h, s * 0.3 + s.with_values(diagonal))


def tiled(
    lead: Lead,
    repeats: tuple[int, int, int],
    *,
    shuffle: int | None = None,
    n_contact: int = 2,
    cutoff: float = CUTOFF,
) -> tuple[BlockMatrix, BlockMatrix]:
    """H and S of the lead repeated over a larger cell: a device without a barrier.

    The first and the last `n_contact` cells along x are the contacts. With `shuffle`, sites come
    in random order and from random images along y and z.
    """
    unit = lead.structure
    cells = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 3)
    cell = np.repeat(cells, unit.n_sites, axis=0)
    site = np.tile(np.arange(unit.n_sites), len(cells))
    if shuffle is not None:
        rng = np.random.default_rng(shuffle)
        order = rng.permutation(len(site))
        cell, site = cell[order], site[order]
        cell[:, 1:] += rng.integers(-2, 3, size=(len(site), 2)) * repeats[1:]
    region = np.full(len(site), Region.OXIDE)
    region[cell[:, 0] < n_contact] = Region.LEFT_CONTACT
    region[cell[:, 0] >= repeats[0] - n_contact] = Region.RIGHT_CONTACT
    structure = Structure.create(
        unit.numbers[site],
        unit.positions[site] + cell @ unit.cell + np.array([0.31, -1.7, 0.9]),
        np.array(repeats)[:, None] * unit.cell,
        region=region,
    )
    pattern = BlockPattern.from_structure(structure, lead.hamiltonian.pattern.basis, cutoff)
    i, j = pattern.pair.T
    unit_shift = cell[j] + pattern.shift * repeats - cell[i]
    matrices = []
    for matrix in (lead.hamiltonian, lead.overlap):
        both = matrix.directed()
        block = {
            (*pair, *shift): both.values[slice(*both.pattern.offset[b : b + 2])]
            for b, (pair, shift) in enumerate(
                zip(both.pattern.pair.tolist(), both.pattern.shift.tolist(), strict=True)
            )
        }
        keys = np.column_stack([site[i], site[j], unit_shift]).tolist()
        matrices.append(BlockMatrix(pattern, np.concatenate([block[tuple(key)] for key in keys])))
    return matrices[0], matrices[1]


def orbitals_of(pattern: BlockPattern, sites: np.ndarray) -> np.ndarray:
    """Orbitals of the sites, in the order given."""
    offset = pattern.orbital_offset
    return np.concatenate([np.arange(offset[site], offset[site + 1]) for site in sites])
