"""Which site of the lead each contact atom of a device is, and self-energies brought onto them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vcmbench.blocks import BlockPattern
from vcmbench.errors import VcmbenchError
from vcmbench.structure import FloatArray, IntArray, Region, Structure
from vcmbench.transport.negf import ComplexArray, Contact

TOLERANCE_ANG = 0.1
"""Largest distance of a contact atom from its ideal site."""


@dataclass(frozen=True, eq=False)
class ContactSites:
    """A device's contact, matched to one principal layer of the lead.

    All arrays stand in transport order: ascending ideal x.

    Attributes
    ----------
    site : (n,) int
        Site of the device.
    lead_site : (n,) int
        Site of the lead's cell it is.
    cell : (n, 3) int
        Cell of the lead it lies in, counted from the contact's first cell along x.
    mismatch_ang : (n,) float
        Distance from the ideal position after the best rigid translation.
    repeats : (n_x, r_y, r_z) int
        Cells per principal layer and over the cross-section.
    """

    site: IntArray
    lead_site: IntArray
    cell: IntArray
    mismatch_ang: FloatArray
    repeats: tuple[int, int, int]


def match_contact(structure: Structure, region: Region, lead: Structure) -> ContactSites:
    """Find the lead site of every atom of a contact, up to one rigid translation.

    Parameters
    ----------
    structure : Structure
        The device, periodic in y and z.
    region : Region
        `Region.LEFT_CONTACT` or `Region.RIGHT_CONTACT`.
    lead : Structure
        The lead's bulk cell.

    Returns
    -------
    ContactSites

    Raises
    ------
    VcmbenchError
        If the cross-sections are incommensurate, the contact is no whole number of cells, or an
        atom lies further than `TOLERANCE_ANG` from every free site of its species.
    """
    sites = np.flatnonzero(structure.region == region)
    if not len(sites):
        raise VcmbenchError(f"structure: region: found no {region.label} sites, expected a contact")
    repeats = _repeats(structure, sites, region, lead)
    candidates = [
        _place(structure, sites, lead, repeats, int(origin))
        for origin in np.flatnonzero(_species(lead) == _species(structure)[sites[0]])
    ]
    # Equivalent translations (rocksalt has several) differ by rounding: the first one then counts.
    best = min(
        candidates, key=lambda c: (not c.complete, c.mismatch_ang.max().round(6)), default=None
    )
    if best is None:
        raise VcmbenchError(f"{region.label}: its first site's species does not occur in the lead")
    worst = int(best.mismatch_ang.argmax())
    if best.mismatch_ang[worst] > TOLERANCE_ANG:
        raise VcmbenchError(
            f"{region.label}: site {sites[worst]} lies {best.mismatch_ang[worst]:.3f} Å from the "
            f"nearest lead site of its species, expected at most {TOLERANCE_ANG} Å"
        )
    if not best.complete:
        raise VcmbenchError(
            f"{region.label}: its {len(sites)} sites do not fill {' x '.join(map(str, repeats))} "
            "whole cells of the lead"
        )
    x = (lead.positions[best.lead_site] + best.cell @ lead.cell)[:, 0]
    order = np.lexsort((sites, np.round(x, 3)))
    return ContactSites(
        sites[order],
        best.lead_site[order],
        best.cell[order],
        best.mismatch_ang[order],
        repeats,
    )


class _Placement(NamedTuple):
    lead_site: IntArray
    cell: IntArray
    mismatch_ang: FloatArray
    complete: bool


def _species(structure: Structure) -> IntArray:
    return 2 * structure.numbers.astype(np.int64) + structure.is_ghost


def _repeats(
    structure: Structure, sites: IntArray, region: Region, lead: Structure
) -> tuple[int, int, int]:
    ratio = np.linalg.norm(structure.cell[1:], axis=1) / np.linalg.norm(lead.cell[1:], axis=1)
    r_y, r_z = (max(1, int(r)) for r in np.round(ratio))
    misfit = np.abs(structure.cell[1:] - np.array([[r_y], [r_z]]) * lead.cell[1:]).max()
    if misfit > TOLERANCE_ANG:
        raise VcmbenchError(
            f"{region.label}: cross-section {structure.cell[1:].tolist()} Å is no multiple of "
            f"the lead's {lead.cell[1:].tolist()} Å"
        )
    n_x, rest = divmod(len(sites), r_y * r_z * lead.n_sites)
    if rest or not n_x:
        raise VcmbenchError(
            f"{region.label}: found {len(sites)} sites, expected a positive multiple of "
            f"{r_y * r_z * lead.n_sites}: whole lead cells over the cross-section"
        )
    return n_x, r_y, r_z


def _place(
    structure: Structure,
    sites: IntArray,
    lead: Structure,
    repeats: tuple[int, int, int],
    origin: int,
) -> _Placement:
    """Assign all sites, given that the first one is the lead's site `origin`."""
    from_first = structure.positions[sites] - structure.positions[sites[0]]
    ideal = from_first + lead.positions[origin]
    shift = (ideal[:, None] - lead.positions) @ np.linalg.inv(lead.cell)
    cells = np.round(shift).astype(np.int64)
    away = (shift - cells) @ lead.cell
    # The first atom may itself be displaced: look beyond the tolerance, then centre.
    distance = np.linalg.norm(away, axis=2)
    distance[_species(structure)[sites, None] != _species(lead)] = np.inf
    lead_site = distance.argmin(axis=1)
    every = np.arange(len(sites))
    cell, away = cells[every, lead_site], away[every, lead_site]
    found = np.isfinite(distance[every, lead_site])
    mismatch = np.where(found, np.linalg.norm(away - away.mean(axis=0), axis=1), np.inf)
    cell[:, 0] -= cell[:, 0].min()
    labels = np.column_stack([cell[:, :1], cell[:, 1:] % repeats[1:], lead_site])
    complete = cell[:, 0].max() < repeats[0] and len(np.unique(labels, axis=0)) == len(sites)
    return _Placement(lead_site, cell, mismatch, bool(complete))


class BlochContact:
    """Bloch's theorem for a contact: self-energies of the lead's cell become the device's.

    A cross-section of r_y x r_z cells at the wave vector k holds the lead's wave vectors
    q = (k + n) / r, n = 0 .. r - 1, and

        Sigma[c m, c' m'] = (1 / r_y r_z) sum_q exp(2 pi i q.(c - c')) Sigma_q[m, m']

    with c the cell that an orbital lies in, m its place in the principal layer of one cell.

    Parameters
    ----------
    contact : ContactSites
        The matched contact.
    device, lead : BlockPattern
        Orbitals of the device and of the lead's cell.
    """

    def __init__(self, contact: ContactSites, device: BlockPattern, lead: BlockPattern) -> None:
        expected = lead.site_orbitals[contact.lead_site]
        found = device.site_orbitals[contact.site]
        if (found != expected).any():
            worst = int((found != expected).argmax())
            raise VcmbenchError(
                f"contact site {contact.site[worst]}: found {found[worst]} orbitals, "
                f"expected the lead's {expected[worst]}"
            )
        n_x, r_y, r_z = contact.repeats
        in_layer = contact.cell[:, 0] * lead.n_orbitals + lead.orbital_offset[contact.lead_site]
        self.n_cells_x = n_x
        self.orbitals = _expand(device.orbital_offset[contact.site], found)
        self._place = _expand(in_layer, found)
        self._cell = np.repeat(contact.cell[:, 1:], found, axis=0)
        self._labels = np.stack(
            np.meshgrid(np.arange(r_y), np.arange(r_z), indexing="ij"), axis=-1
        ).reshape(-1, 2)
        self._repeats = np.array([r_y, r_z])
        wrapped = self._cell % self._repeats
        self._label = wrapped[:, 0] * r_z + wrapped[:, 1]
        # Sigma of all cells is made as [c, c', m, m'] and read out at [row] + [column].
        n_labels, n_layer = len(self._labels), n_x * lead.n_orbitals
        row = self._label * n_labels * n_layer**2 + self._place * n_layer
        column = self._label * n_layer**2 + self._place
        self._transposed = row + column[:, None]

    def wave_vectors(self, k: FloatArray) -> FloatArray:
        """(r_y r_z, 2) lead wave vectors of the device's k (3,), fractional."""
        return (self._labels + k[1:]) / self._repeats

    def wrap_phases(self, k: FloatArray) -> ComplexArray:
        """(n,) phase of each contact orbital relative to its image in the cells 0 .. r - 1.

        The device's H(k) refers to positions as stored, `unfold` to cells counted from 0.
        """
        return np.exp(2j * np.pi * ((self._cell // self._repeats) @ k[1:]))

    def unfold(self, k: FloatArray, contacts: Sequence[Contact]) -> Contact:
        """Self-energy of the whole cross-section from those at each of `wave_vectors`."""
        n_labels = len(self._labels)
        phase = np.exp(2j * np.pi * (self.wave_vectors(k) @ self._labels.T)) / np.sqrt(n_labels)
        pairs = (phase[:, :, None] * phase[:, None, :].conj()).reshape(n_labels, -1)
        sigma = pairs.T @ np.stack([c.sigma.ravel() for c in contacts])
        factors = [
            phase[q, self._label, None] * c.factor[self._place] for q, c in enumerate(contacts)
        ]
        return Contact(sigma.ravel()[self._transposed].T, np.hstack(factors))


def _expand(starts: IntArray, sizes: IntArray) -> IntArray:
    """Concatenate ``arange(start, start + size)`` for all sites."""
    first = np.repeat(starts, sizes)
    return first + np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
