"""CP2K inputs that print real-space H and S of a structure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from ase.data import chemical_symbols
from pydantic import BaseModel, ConfigDict, Field

from vcmbench.basis import Species
from vcmbench.build.spec import TIN_LATTICE_ANG
from vcmbench.errors import VcmbenchError
from vcmbench.structure import FloatArray, Region, Structure

PROJECT: Final = "vcm"
"""Stem of CP2K's output files."""

RESTART_NAME: Final = f"{PROJECT}-RESTART.kp"
"""Density matrix that a k-point run saves, and that the next one can start from."""

VALENCE: Final = {"N": 5, "O": 6, "Ti": 12, "Hf": 12}
"""Valence electrons of the GTH-PBE pseudopotentials."""

GHOST_KIND: Final = "V"
"""Label of the kind that carries oxygen's basis without an atom."""

DENSITY_LENGTH_ANG: Final = 4 * TIN_LATTICE_ANG
"""In-plane k-points times side: MP 2×2 for 8.48 Å, as dense as MP 4×4 for the TiN cell."""

LEAD_MESH_X: Final = 6
"""k-points along x for the 8-atom TiN cell (14 SCF steps; E_F to a few meV)."""

_SPLIT_ANG: Final = 0.5
"""Distance that atoms must keep from both ends of the cell along x."""

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Mixing(BaseModel):
    """Broyden density mixing."""

    model_config = _STRICT

    alpha: float = Field(default=0.1, gt=0, le=1)
    """Fraction of the new density."""
    beta: float = Field(default=0.6, gt=0)
    """Kerker damping of long wavelengths, 1/bohr."""
    n_vectors: int = Field(default=10, ge=1)
    """Steps remembered: memory grows with it."""


class Cp2kSettings(BaseModel):
    """Settings of a run that decide its result, and its mixing, which does not."""

    model_config = _STRICT

    basis_set: Literal["SZV-MOLOPT-SR-GTH", "DZVP-MOLOPT-SR-GTH"] = "SZV-MOLOPT-SR-GTH"
    cutoff_ry: float = Field(default=400.0, gt=0)
    """Plane-wave cutoff of the finest grid, Ry."""
    rel_cutoff_ry: float = Field(default=50.0, gt=0)
    eps_default: float = Field(default=1e-11, gt=0)
    """Precision of the integrals; its square root bounds the range of the orbitals."""
    eps_rho: float = Field(default=1e-8, gt=0)
    """Density, in electrons per bohr³, at which products of orbitals leave the grid."""
    eps_scf: float = Field(default=1e-6, gt=0)
    max_scf: int = Field(default=80, ge=1)
    kpoint_mesh: tuple[int, int, int] | None = None
    """Monkhorst–Pack mesh; by the cross-section if None (`default_mesh`)."""
    smearing_temperature_k: float = Field(default=1000.0, gt=0)
    """Fermi–Dirac temperature of the electrons, K."""
    matrix_threshold: float = Field(default=1e-9, ge=0)
    """Smallest printed entry of H (Hartree) and S."""
    restart_every: int = Field(default=10, ge=1)
    """SCF steps between two saved densities."""
    mixing: Mixing = Mixing()


def default_mesh(structure: Structure) -> tuple[int, int, int]:
    """Monkhorst–Pack mesh for a structure: equivalent for devices and the TiN cell of their lead.

    Parameters
    ----------
    structure : Structure
        A device, or the 8-atom TiN cell.

    Returns
    -------
    (3,) int
        1 × n × n for a device, 6 × 4 × 4 for the TiN cell. Never Γ only, which prints no
        real-space matrices: from 16.96 Å on, one point off Γ (1 × 1 × 2).
    """
    y, z = (_points(side) for side in np.diag(structure.cell)[1:])
    if (structure.region == Region.NONE).all():
        return LEAD_MESH_X, y, z
    return (1, y, z) if (y, z) != (1, 1) else (1, 1, 2)


def _points(side_ang: float) -> int:
    return max(1, math.ceil(DENSITY_LENGTH_ANG / side_ang - 1e-6))


def lead_settings(settings: Cp2kSettings, side_ang: float) -> Cp2kSettings:
    """Give the lead of devices their settings, with an equivalent k-mesh.

    Parameters
    ----------
    settings : Cp2kSettings
        Settings of the devices.
    side_ang : float
        Side of their cross-section, Å.

    Returns
    -------
    Cp2kSettings
        The 8-atom TiN cell has in-plane points for each of the device's cells, so that folding
        gives the device's points; no mesh where `default_mesh` says the same.
    """
    mesh = settings.kpoint_mesh
    y, z = mesh[1:] if mesh else 2 * (_points(side_ang),)
    if (y, z) == (1, 1) and not mesh:
        z = 2
    cells = round(side_ang / TIN_LATTICE_ANG)
    equivalent = (LEAD_MESH_X, cells * y, cells * z)
    default = (LEAD_MESH_X, *2 * (_points(TIN_LATTICE_ANG),))
    return settings.model_copy(
        update={"kpoint_mesh": None if equivalent == default else equivalent}
    )


def placed_in_cell(structure: Structure) -> Structure:
    """Move sites into [0, L) with no layer split between both ends of x.

    Parameters
    ----------
    structure : Structure
        Orthorhombic cell.

    Returns
    -------
    Structure
        The structure itself if it lies so already, as builders leave it; else shifted along x to
        the nearest gap between layers, and wrapped.

    Raises
    ------
    VcmbenchError
        If the cell is not orthorhombic.
    """
    sides = np.diag(structure.cell)
    if not np.allclose(structure.cell, np.diag(sides), atol=1e-9) or (sides <= 0).any():
        raise VcmbenchError("structure: cell: expected an orthorhombic cell along x, y and z")
    inside = ((structure.positions >= 0) & (structure.positions < sides)).all()
    if inside and _end_gap(structure.positions[:, 0], sides[0]):
        return structure
    x = np.sort(np.mod(structure.positions[:, 0], sides[0]))
    gaps = np.diff(x, append=x[0] + sides[0])
    middles = x + gaps / 2
    # The shift that takes each gap's middle to x = 0, the short way round.
    shifts = -(middles - sides[0] * np.round(middles / sides[0]))
    wide = gaps >= min(2 * _SPLIT_ANG, gaps.max())
    shift = shifts[wide][np.argmin(np.abs(shifts[wide]))]
    positions = structure.positions + np.array([shift, 0.0, 0.0])
    wrapped = np.mod(positions, sides)
    wrapped[wrapped >= sides] = 0.0  # np.mod rounds tiny negative numbers up to the divisor.
    return structure.moved(wrapped)


def cp2k_input(
    structure: Structure, settings: Cp2kSettings, *, start_density: str | None = None
) -> str:
    """Input text for a structure.

    Parameters
    ----------
    structure : Structure
        Sites in [0, L) (`placed_in_cell`); ghosts must be oxygen.
    settings : Cp2kSettings
        Settings of the run.
    start_density : str, optional
        Saved density matrix of the same sites (of this run or of a sibling); atomic guess if None.

    Returns
    -------
    str
        The input.

    Raises
    ------
    VcmbenchError
        If an element has no pseudopotential here, or sites lie outside the cell.
    """
    sides = np.diag(structure.cell)
    if not ((structure.positions >= 0) & (structure.positions < sides)).all():
        raise VcmbenchError("structure: positions: found sites outside the cell, expected [0, L)")
    _refuse_unknown(structure)
    sections: Section = {
        "GLOBAL": {"PROJECT": PROJECT, "RUN_TYPE": "ENERGY", "PRINT_LEVEL": "MEDIUM"},
        "FORCE_EVAL": {
            "METHOD": "QS",
            "DFT": _dft(structure, settings, start_density),
            "SUBSYS": _subsys(structure, settings),
        },
    }
    return "\n".join(_lines(sections)) + "\n"


def n_electrons(structure: Structure) -> int:
    """Return the number of valence electrons; ghosts have none."""
    _refuse_unknown(structure)
    symbols = [chemical_symbols[n] for n in structure.numbers[~structure.is_ghost]]
    return sum(VALENCE[symbol] for symbol in symbols)


Section = dict[str, "str | list[str] | Section"]
"""Keywords with their values, and subsections; a key may carry a parameter after a space."""


def _dft(structure: Structure, settings: Cp2kSettings, start_density: str | None) -> Section:
    mesh = settings.kpoint_mesh or default_mesh(structure)
    dft: Section = {
        "BASIS_SET_FILE_NAME": "BASIS_MOLOPT",
        "POTENTIAL_FILE_NAME": "GTH_POTENTIALS",
        "MGRID": {
            "CUTOFF": f"{settings.cutoff_ry:g}",
            "REL_CUTOFF": f"{settings.rel_cutoff_ry:g}",
            "NGRIDS": "5",
        },
        "QS": {
            "EPS_DEFAULT": f"{settings.eps_default:.1E}",
            "EPS_RHO_RSPACE": f"{settings.eps_rho:.1E}",
        },
        "KPOINTS": {
            "SCHEME": "MONKHORST-PACK " + " ".join(map(str, mesh)),
            "SYMMETRY": "OFF",
            "FULL_GRID": "OFF",
            "WAVEFUNCTIONS": "COMPLEX",
        },
        "SCF": _scf(structure, settings, start_density),
        "XC": {"XC_FUNCTIONAL PBE": {}},
        "PRINT": {name: _matrix_print(settings) for name in ("KS_CSR_WRITE", "S_CSR_WRITE")},
    }
    if start_density is not None:
        dft = {"WFN_RESTART_FILE_NAME": start_density, **dft}
    return dft


def _scf(structure: Structure, settings: Cp2kSettings, start_density: str | None) -> Section:
    return {
        "SCF_GUESS": "ATOMIC" if start_density is None else "RESTART",
        "EPS_SCF": f"{settings.eps_scf:.1E}",
        "MAX_SCF": str(settings.max_scf),
        # Bands for the tail of the Fermi function: a sixth of the occupied ones is plenty.
        "ADDED_MOS": str(max(20, math.ceil(n_electrons(structure) / 12))),
        "DIAGONALIZATION": {"ALGORITHM": "STANDARD"},
        "SMEAR": {
            "METHOD": "FERMI_DIRAC",
            "ELECTRONIC_TEMPERATURE": f"[K] {settings.smearing_temperature_k:g}",
        },
        "MIXING": {
            "METHOD": "BROYDEN_MIXING",
            "ALPHA": f"{settings.mixing.alpha:g}",
            "BETA": f"{settings.mixing.beta:g}",
            "NBROYDEN": str(settings.mixing.n_vectors),
        },
        "PRINT": {
            "RESTART ON": {
                "BACKUP_COPIES": "1",
                "EACH": {"QS_SCF": str(settings.restart_every)},
            }
        },
    }


def _matrix_print(settings: Cp2kSettings) -> Section:
    return {
        "BINARY": "",
        "UPPER_TRIANGULAR": "",
        "THRESHOLD": f"{settings.matrix_threshold:.1E}",
        "REAL_SPACE": "",
    }


def _subsys(structure: Structure, settings: Cp2kSettings) -> Section:
    sides: FloatArray = np.diag(structure.cell)
    kinds: Section = {
        f"KIND {kind_label(species)}": _kind(species, settings)
        for species in structure.species_list
    }
    labels = [kind_label(species) for species in structure.species_list]
    rows = [
        f"{labels[species]} " + " ".join(f"{value:.10f}" for value in position)
        for species, position in zip(structure.species_index, structure.positions, strict=True)
    ]
    return {
        "CELL": {"ABC": " ".join(f"{side:.10f}" for side in sides)},
        "COORD": {"": rows},
        **kinds,
    }


def kind_label(species: Species) -> str:
    """Label of a species' &KIND."""
    return GHOST_KIND if species.is_ghost else chemical_symbols[species.number]


def _kind(species: Species, settings: Cp2kSettings) -> Section:
    symbol = chemical_symbols[species.number]
    if species.is_ghost:
        return {"ELEMENT": symbol, "BASIS_SET": settings.basis_set, "GHOST": ""}
    potential = f"GTH-PBE-q{VALENCE[symbol]}"
    return {"BASIS_SET": settings.basis_set, "POTENTIAL": potential}


def _refuse_unknown(structure: Structure) -> None:
    for species in structure.species_list:
        symbol = chemical_symbols[species.number]
        if symbol not in VALENCE or (species.is_ghost and symbol != "O"):
            known = ", ".join([*VALENCE, "O*"])
            raise VcmbenchError(f"structure: species: found {species.label}, expected {known}")


def _end_gap(x: FloatArray, length: float) -> bool:
    """Whether no site lies close to either end of the cell."""
    return bool(x.min() >= _SPLIT_ANG and x.max() <= length - _SPLIT_ANG)


def _lines(section: Section, indent: str = "") -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield f"{indent}&{key}"
            yield from _lines(value, indent + "  ")
            yield f"{indent}&END {key.split()[0]}"
        elif isinstance(value, list):
            yield from (f"{indent}{row}" for row in value)
        else:
            yield f"{indent}{key} {value}".rstrip()
