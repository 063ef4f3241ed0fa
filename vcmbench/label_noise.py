"""How far two DFT runs of one device differ: the noise that no model can be blamed for.

The second run may have other settings, a rigid shift against the grid, or the structure turned
(y and z exchanged): H is brought back into the first run's frame before it is compared.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.device import HEADLINE_CUTOFF_ANG, Device
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.harmonics import rotate_matrix
from vcmbench.structure import FloatArray, IntArray, Structure
from vcmbench.transport.observables import log10_difference
from vcmbench.units import MEV_PER_EV

SAME_SITE_ANG: Final = 1e-6
SWAP_YZ: Final = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
"""Exchange of y and z: a mirror plane that the grid of a square cross-section shares."""


class LabelNoise(BaseModel):
    """Difference of two runs.

    Attributes
    ----------
    mae_near_mev, mae_support_mev : float
        Mean |ΔH| over the directed entries closer than 8 Å and over the whole support, meV.
    onsite_mev : float
        Mean |ΔH| of the on-site blocks, meV.
    max_mev : float
        Largest |ΔH|, meV.
    log10_t_mean, log10_t_max : float or None
        |Δlog10 T(E)|, decades; None unless both runs carry T(E).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mae_near_mev: float
    mae_support_mev: float
    onsite_mev: float
    max_mev: float
    log10_t_mean: float | None = None
    log10_t_max: float | None = None


def label_noise(
    reference: Device, variant: Device, rotation: FloatArray | None = None
) -> LabelNoise:
    """Compare H and T(E) of two runs of one device.

    Parameters
    ----------
    reference, variant : Device
        The runs; sites in the same order.
    rotation : (3, 3) float, optional
        Orthogonal matrix that took the reference's structure to the variant's.

    Raises
    ------
    VcmbenchError
        If the variant is not the same device, shifted and turned.
    """
    pattern = reference.pattern
    other = matched(variant.hamiltonian, pattern, np.eye(3) if rotation is None else rotation)
    error = np.abs(other.values - reference.hamiltonian.values) * MEV_PER_EV
    weight = np.repeat(pattern.weight, np.diff(pattern.offset))
    near = pattern.entry_mask(pattern.distance < HEADLINE_CUTOFF_ANG)
    onsite = pattern.entry_mask(pattern.is_onsite)
    return LabelNoise(
        mae_near_mev=float(np.average(error[near], weights=weight[near])),
        mae_support_mev=float(np.average(error, weights=weight)),
        onsite_mev=float(error[onsite].mean()),
        max_mev=float(error.max()),
        **_transmission_noise(reference, variant),
    )


def matched(matrix: BlockMatrix, pattern: BlockPattern, rotation: FloatArray) -> BlockMatrix:
    """Bring an operator of a turned and shifted device onto the pattern of the device itself.

    Parameters
    ----------
    matrix : BlockMatrix
        Operator of the structure after ``x -> rotation @ x`` and a shift, modulo its lattice.
    pattern : BlockPattern
        Pattern to bring it to.
    rotation : (3, 3) float
        Orthogonal matrix.
    """
    turned = rotate_matrix(matrix, rotation.T)
    back = matrix.pattern.structure.transformed(rotation.T)
    site_shift = _site_shift(back, pattern.structure)
    own = matrix.pattern
    lattice = np.rint(own.shift @ back.cell @ np.linalg.inv(pattern.structure.cell)).astype(int)
    i, j = own.pair.T
    shift = lattice + site_shift[j] - site_shift[i]
    return turned.relabelled(pattern.structure, shift).align(pattern)


def _site_shift(structure: Structure, reference: Structure) -> IntArray:
    """(n_sites, 3) lattice vectors n with x = x_reference + common shift + n·cell."""
    if not (
        np.array_equal(structure.numbers, reference.numbers)
        and np.array_equal(structure.is_ghost, reference.is_ghost)
    ):
        raise VcmbenchError("label noise: found other sites, expected those of the reference")
    turned = np.rint(structure.cell @ np.linalg.inv(reference.cell))
    if np.abs(turned @ reference.cell - structure.cell).max() > SAME_SITE_ANG:
        raise bad_input(
            "label noise",
            "cell",
            found=structure.cell.round(4).tolist(),
            expected=f"{reference.cell.round(4).tolist()} of the reference",
        )
    inverse = np.linalg.inv(reference.cell)
    moved = (structure.positions - reference.positions) @ inverse
    relative = moved - moved[0]
    whole = np.rint(relative)
    worst = np.abs((relative - whole) @ reference.cell).max()
    if worst > SAME_SITE_ANG:
        raise bad_input(
            "label noise",
            "positions",
            found=f"sites displaced against each other by up to {worst:.3g} Å",
            expected="the reference's, shifted as a whole (is it turned as said?)",
        )
    return whole.astype(np.int64)


def _transmission_noise(reference: Device, variant: Device) -> dict[str, float]:
    first, second = reference.transport, variant.transport
    if first is None or second is None:
        return {}
    if not np.array_equal(first.energies_ev, second.energies_ev):
        raise bad_input(
            variant.id, "transport: energies", found="others", expected="the reference's"
        )
    difference = np.abs(log10_difference(first.mean, second.mean))
    return {"log10_t_mean": float(difference.mean()), "log10_t_max": float(difference.max())}
