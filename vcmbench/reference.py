"""Reference transmission of a device and its noise floors, computed once from the raw run.

The floors say how far T(E) moves for reasons that are no model's fault. They need every entry
that the DFT code printed, so they are computed at import and stored with the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vcmbench.blocks import BlockMatrix
from vcmbench.device import SUPPORT_ANG, Device, TransportReference
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.kpoints import monkhorst_pack
from vcmbench.store.device import decode, encode
from vcmbench.structure import FloatArray, Region
from vcmbench.transport import Lead, Transmission, transmission
from vcmbench.transport.observables import log10_difference

ENERGIES_EV: Final = np.round(np.arange(-100, 101) * 0.01, 2)
"""Energies of a release: E_F ± 1 eV in steps of 10 meV."""
FLOOR_STRIDE: Final = 4
"""Floors are evaluated at every fourth energy."""
TRUNCATIONS_ANG: Final = (8.0, 10.0)
"""Cutoffs of H, with S kept whole, whose effect on T is a floor."""

Progress = Callable[[str, int, int], None]


class Operators(NamedTuple):
    """H − E_F·S (eV) and S, each on its own pattern."""

    hamiltonian: BlockMatrix
    overlap: BlockMatrix


def with_reference(
    device: Device,
    raw: Operators,
    lead: Device,
    raw_lead: Operators,
    *,
    cache: Path | None = None,
    progress: Progress = lambda _name, _done, _total: None,
) -> Device:
    """Add the reference transmission and its floors to a device.

    Parameters
    ----------
    device : Device
        As imported: the support's blocks, not yet rounded.
    raw : Operators
        All blocks that the DFT code printed for the device.
    lead, raw_lead : Device and Operators
        The same for the lead.
    cache : Path, optional
        Folder for the lead's surfaces.
    progress : callable
        Called with the name of the sweep, finished and all points.

    Returns
    -------
    Device
        As it is stored (rounded), with T(k, E) of the rounded matrices.
    """
    stored, stored_lead = rounded(device), rounded(lead)
    mesh = stored.provenance.kpoint_mesh
    if mesh is None or mesh[0] != 1:
        raise bad_input(device.id, "kpoint_mesh", found=mesh, expected="1 x n x n, for T(k, E)")
    kpoints, weights = monkhorst_pack(mesh)

    def sweep(name: str, h: BlockMatrix, s: BlockMatrix, lead: Lead, stride: int) -> Transmission:
        energies = ENERGIES_EV[::stride]
        total = len(energies) * len(kpoints)
        return transmission(
            h,
            s,
            lead,
            energies,
            kpoints,
            weights,
            cache=cache,
            progress=lambda done, _points: progress(name, done, total),
        )

    own_lead = Lead(stored_lead.hamiltonian, stored_lead.overlap)
    reference = sweep("reference", stored.hamiltonian, stored.overlap, own_lead, 1)
    if not reference.gates.passed:
        raise VcmbenchError(f"{device.id}: reference transmission fails {reference.gates}")
    variants = {
        "rounding": (device.hamiltonian, device.overlap, Lead(lead.hamiltonian, lead.overlap)),
        "support": (*raw, Lead(*_within_principal_layer(raw_lead))),
        **{
            f"cutoff_{cutoff:g}A": (_truncated(stored, cutoff), stored.overlap, own_lead)
            for cutoff in TRUNCATIONS_ANG
        },
    }
    expected = reference.mean[::FLOOR_STRIDE]
    floors = {
        name: _statistics(expected, sweep(name, *variant, FLOOR_STRIDE).mean)
        for name, variant in variants.items()
    }
    return replace(
        stored,
        transport=TransportReference(
            lead=lead.id,
            energies_ev=ENERGIES_EV,
            kpoints=kpoints,
            weights=weights,
            transmission=reference.by_k,
            floors=floors,
        ),
    )


def rounded(device: Device) -> Device:
    """Return the device as it will be read back: H and S in fixed point."""
    return decode(encode(device))


def between_contacts(device: Device) -> NDArray[np.bool_]:
    """(n_blocks,) mask of the blocks within and between the contacts."""
    contact = device.structure.in_region(Region.LEFT_CONTACT, Region.RIGHT_CONTACT)
    return np.asarray(contact[device.pattern.pair].all(axis=1))


def _truncated(device: Device, cutoff_ang: float) -> BlockMatrix:
    """H as a perfect model of that cutoff would predict it, with the contacts from DFT."""
    near = device.hamiltonian.truncate(cutoff_ang).align(device.pattern)
    return near.replaced(device.hamiltonian, between_contacts(device))


def _within_principal_layer(lead: Operators) -> Operators:
    """Drop the lead's couplings beyond the next principal layer, which no solver can hold."""
    cell_x = lead.hamiltonian.pattern.structure.cell[0, 0]
    n_cells = int(np.ceil(SUPPORT_ANG / cell_x))
    return Operators(*(m.select(np.abs(m.pattern.shift[:, 0]) <= n_cells) for m in lead))


def _statistics(expected: FloatArray, found: FloatArray) -> dict[str, float]:
    difference = np.abs(log10_difference(expected, found))
    return {
        "mean": float(difference.mean()),
        "p95": float(np.percentile(difference, 95)),
        "max": float(difference.max()),
        "energies": len(difference),
    }
