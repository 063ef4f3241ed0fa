"""A device or bulk cell: DFT Hamiltonian, overlap, provenance and reference transmission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.structure import FloatArray, Region, Structure
from vcmbench.withheld import WithheldHamiltonian

Kind = Literal["device", "bulk"]
Gauge = Literal["fermi", "raw"]

SUPPORT_ANG = 12.0
"""Every pair of sites closer than this has a block (Å)."""


class Provenance(BaseModel):
    """Where the matrices come from: what is needed to compute them again.

    Energies in eV unless the name says otherwise. Only `code` is required of bulk data from
    elsewhere; a device has every field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    """Electronic-structure code, e.g. ``"CP2K"``."""
    code_version: str | None = None
    functional: str | None = None
    """Exchange-correlation functional, e.g. ``"PBE"``."""
    basis_sets: dict[str, str] | None = None
    """Basis-set name by species label."""
    pseudopotentials: dict[str, str] | None = None
    """Pseudopotential name by species label (ghosts have none)."""
    cutoff_ry: float | None = None
    """Plane-wave cutoff of the finest real-space grid, Ry."""
    rel_cutoff_ry: float | None = None
    """Cutoff that maps Gaussians onto the grids, Ry."""
    eps_default: float | None = None
    kpoint_mesh: tuple[int, int, int] | None = None
    """Monkhorst–Pack mesh of the SCF."""
    smearing_temperature_k: float | None = None
    """Electronic (Fermi–Dirac) temperature, K."""
    eps_scf: float | None = None
    """Convergence threshold of the SCF."""
    scf_steps: int | None = None
    scf_residual: float | None = None
    """Convergence measure of the last SCF step."""
    fermi_energy_ev: float | None = None
    """Fermi energy in the code's own gauge, eV."""
    n_electrons: int | None = None
    """Valence electrons in the cell."""
    input_text: str | None = None
    """The complete input file."""
    source: str | None = None
    """Citation or address for data from elsewhere."""


PRIVATE_PROVENANCE = ("scf_steps", "scf_residual", "fermi_energy_ev", "input_text")
"""What is withheld along with a Hamiltonian."""


@dataclass(frozen=True, eq=False)
class TransportReference:
    """Reference transmission T(k, E) of a device.

    Parameters
    ----------
    lead : str
        Id of the lead in the same release.
    energies_ev : (n_energies,) float
        Energies relative to the Fermi level, eV.
    kpoints : (n_k, 3) float
        Fractional wave vectors; the component along x is zero.
    weights : (n_k,) float
        Weights, summing to one.
    transmission : (n_k, n_energies) float
        T(k, E) from the stored (rounded, 12 Å) Hamiltonian.
    floors : mapping of str to mapping of str to float
        Noise floors computed from the raw run: for each cause, statistics of |Δlog10(T + ε)|.
    """

    lead: str
    energies_ev: FloatArray
    kpoints: FloatArray
    weights: FloatArray
    transmission: FloatArray
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_energies, n_k = len(self.energies_ev), len(self.kpoints)
        wanted = {
            "energies_ev": (n_energies,),
            "kpoints": (n_k, 3),
            "weights": (n_k,),
            "transmission": (n_k, n_energies),
        }
        for name, shape in wanted.items():
            value: NDArray[np.float64] = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != shape:
                raise bad_input("transport", name, found=f"shape {value.shape}", expected=shape)
            if not np.isfinite(value).all():
                raise bad_input("transport", name, found="NaN or infinity", expected="numbers")
            object.__setattr__(self, name, value)
        if abs(self.weights.sum() - 1) > 1e-9:
            raise bad_input("transport", "weights", found=self.weights.sum(), expected="sum 1")

    @property
    def mean(self) -> FloatArray:
        """(n_energies,) k-averaged transmission."""
        return self.weights @ self.transmission


@dataclass(frozen=True, eq=False)
class Device:
    """One entry of a dataset.

    Parameters
    ----------
    id : str
        Name within its release.
    kind : {"device", "bulk"}
        Devices have two contacts and full provenance; bulk cells need not.
    hamiltonian, overlap : BlockMatrix
        H (eV) and S on one common pattern. H may be a `WithheldHamiltonian`.
    provenance : Provenance
        Origin of the matrices.
    gauge : {"fermi", "raw"}
        ``"fermi"``: the matrix is H − E_F·S. ``"raw"``: the code's own zero (bulk only).
    folded : bool
        Whether all periodic images were summed by the code (Γ-only run).
    transport : TransportReference, optional
        Reference transmission; None where there are no contacts.
    """

    id: str
    kind: Kind
    hamiltonian: BlockMatrix
    overlap: BlockMatrix
    provenance: Provenance
    gauge: Gauge = "fermi"
    folded: bool = False
    transport: TransportReference | None = None

    def __post_init__(self) -> None:
        if self.overlap.pattern is not self.hamiltonian.pattern:
            raise VcmbenchError(f"{self.id}: H and S have different block patterns: expected one")
        if self.kind == "device":
            self._check_device()

    def _check_device(self) -> None:
        optional = ("source", *(PRIVATE_PROVENANCE if self.is_withheld else ()))
        missing = [n for n, value in self.provenance if value is None and n not in optional]
        if missing:
            raise bad_input(
                self.id,
                "provenance",
                found=f"no {', '.join(missing)}",
                expected="all of a device's",
            )
        if self.gauge != "fermi":
            raise bad_input(self.id, "gauge", found=self.gauge, expected="'fermi' for a device")

    @property
    def is_withheld(self) -> bool:
        """Whether H is withheld for a hidden test."""
        return isinstance(self.hamiltonian, WithheldHamiltonian)

    @property
    def lead(self) -> str | None:
        """Id of the lead in the same release that both contacts continue into."""
        if isinstance(self.hamiltonian, WithheldHamiltonian):
            return self.hamiltonian.lead
        return self.transport.lead if self.transport else None

    @property
    def pattern(self) -> BlockPattern:
        """Block pattern of H and S."""
        return self.hamiltonian.pattern

    @property
    def structure(self) -> Structure:
        """Sites of the device."""
        return self.pattern.structure

    @property
    def basis(self) -> OrbitalBasis:
        """Orbitals of each species."""
        return self.pattern.basis


def contact_blocks(pattern: BlockPattern) -> NDArray[np.bool_]:
    """(n_blocks,) mask of the blocks within and between the contacts."""
    contact = pattern.structure.in_region(Region.LEFT_CONTACT, Region.RIGHT_CONTACT)
    return np.asarray(contact[pattern.pair].all(axis=1))
