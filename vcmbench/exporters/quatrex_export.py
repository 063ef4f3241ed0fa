"""A device in the input layout of QuaTrEx, for its wave-function (QTBM) solver.

folder/quatrex_config.toml    formalism, contacts, energies
folder/inputs/hamiltonian.h5  H(R) in eV of every transverse image "[0,y,z]", CSR
folder/inputs/overlap.h5      S(R), likewise
folder/inputs/structure.xyz   sites; a ghost is called V

Layout and conventions are those of QuaTrEx's documentation and sources of 2026
(github.com/quatrex/quatrex). Contacts are found there by geometry: cells of the lead's size are
counted from the outer corner until they no longer couple, so the leads come from the device's own
blocks, not from the release's lead, and one cell of buffer has to follow a contact of three.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse
from ase.data import chemical_symbols

from vcmbench.basis import Species
from vcmbench.blocks import BlockMatrix
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.structure import FloatArray, IntArray, Region, Structure
from vcmbench.transport.contacts import match_contact

GHOST: Final = "V"
"""Symbol of a ghost: QuaTrEx knows sites by a symbol alone."""
MATCH_ANG: Final = 0.3
"""Largest displacement of an atom of a contact's cells that QuaTrEx accepts."""


def write_quatrex(
    folder: Path,
    hamiltonian: BlockMatrix,
    overlap: BlockMatrix,
    lead: Structure,
    *,
    kpoint_mesh: tuple[int, int, int],
    window_ev: tuple[float, float] = (-1.0, 1.0),
    n_energies: int = 201,
) -> None:
    """Write a folder that ``quatrex run`` takes; all or nothing.

    Parameters
    ----------
    folder : Path
        New folder.
    hamiltonian, overlap : BlockMatrix
        H (eV, relative to the Fermi level) and S of a device.
    lead : Structure
        Cell of the lead, orthorhombic.
    kpoint_mesh : (3,) int
        Monkhorst–Pack mesh; 1 along x.
    window_ev : tuple of float
        Lowest and highest energy.
    n_energies : int
        Energies, both ends included.

    Raises
    ------
    VcmbenchError
        If h5py is not installed, the folder exists, or a contact is too short for QuaTrEx.
    """
    if folder.exists():
        raise bad_input(folder, "folder", found="one that exists", expected="a new one")
    h5py = _h5py()
    origin = _corner(hamiltonian.pattern.structure, lead)
    matrices = {
        name: _inside(matrix, origin)
        for name, matrix in (("hamiltonian", hamiltonian), ("overlap", overlap))
    }
    structure = matrices["hamiltonian"].pattern.structure
    n_cells = _require_cells(matrices["hamiltonian"], lead, origin)
    config = _config(matrices["hamiltonian"], lead, origin, kpoint_mesh, window_ev, n_energies)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "inputs").mkdir(parents=True)
        for name, matrix in matrices.items():
            with h5py.File(temporary / "inputs" / f"{name}.h5", "w") as file:
                _write_images(file, matrix)
        (temporary / "inputs/structure.xyz").write_text(_xyz(structure), encoding="utf-8")
        note = f"# {n_cells} cells of the lead at either end couple to the origin's.\n"
        (temporary / "quatrex_config.toml").write_text(note + config, encoding="utf-8")
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _corner(structure: Structure, lead: Structure) -> FloatArray:
    """Outer corner of the left contact, a quarter of a cell away from every atom plane."""
    left = match_contact(structure, Region.LEFT_CONTACT, lead)
    away = structure.positions[left.site] - (lead.positions[left.lead_site] + left.cell @ lead.cell)
    return away.mean(axis=0) + lead.positions.min(axis=0) - np.diag(lead.cell) / 4


def _inside(matrix: BlockMatrix, origin: FloatArray) -> BlockMatrix:
    """Move sites into the cell that begins at the corner, and open the device along x."""
    pattern, structure = matrix.pattern, matrix.pattern.structure
    image = np.floor((structure.positions - origin) @ np.linalg.inv(structure.cell)).astype(int)
    shift = pattern.shift + image[pattern.pair[:, 1]] - image[pattern.pair[:, 0]]
    moved = matrix.relabelled(structure.moved(structure.positions - image @ structure.cell), shift)
    return moved.select(moved.pattern.shift[:, 0] == 0)


def _cell_of(structure: Structure, lead: Structure, start: FloatArray, sign: int) -> IntArray:
    """(n_sites,) cell of the lead along x that a site lies in, counted inwards from a corner."""
    return np.floor(sign * (structure.positions[:, 0] - start[0]) / lead.cell[0, 0]).astype(int)


def _ends(structure: Structure, lead: Structure, origin: FloatArray) -> dict[str, Any]:
    """Outer corner and inward direction of both contacts."""
    left = structure.in_region(Region.LEFT_CONTACT)
    right = structure.in_region(Region.RIGHT_CONTACT)
    depth = np.round(np.ptp(structure.positions[left, 0]) / lead.cell[0, 0] * 2) / 2
    far = origin.copy()
    far[0] = structure.positions[right, 0].mean() + (depth / 2 + 0.25) * lead.cell[0, 0]
    return {"left": (origin, 1), "right": (far, -1)}


def _require_cells(matrix: BlockMatrix, lead: Structure, origin: FloatArray) -> int:
    """Cells of a contact that couple to its outermost one; all of them must be the lead's."""
    structure, pair = matrix.pattern.structure, matrix.pattern.pair
    n_cells = 0
    for name, (start, sign) in _ends(structure, lead, origin).items():
        cell = _cell_of(structure, lead, start, sign)
        coupled = cell[pair[(cell[pair] == 0).any(axis=1)]].max() + 1
        first = np.flatnonzero(cell == 0)
        for n in range(1, coupled):
            wanted = structure.positions[first] + sign * n * lead.cell[0]
            there = np.flatnonzero(cell == n)
            apart = _distance(wanted, structure.positions[there], structure.cell)
            near = apart.min(axis=1, initial=np.inf) if len(there) else np.full(len(first), np.inf)
            if len(there) != len(first) or near.max() > MATCH_ANG:
                raise bad_input(
                    f"{name} contact",
                    "cells",
                    found=f"cell {n + 1} of {coupled} is not the lead's within {MATCH_ANG} Å",
                    expected="as many cells of the lead as the outermost one couples to",
                )
        n_cells = max(n_cells, int(coupled))
    return n_cells


def _distance(first: FloatArray, second: FloatArray, cell: FloatArray) -> FloatArray:
    """(n, m) distances, periodic in y and z."""
    vector = first[:, None] - second
    sides = np.diag(cell)[1:]
    vector[..., 1:] -= np.round(vector[..., 1:] / sides) * sides
    return np.linalg.norm(vector, axis=2)


def _write_images(file: Any, matrix: BlockMatrix) -> None:
    """One CSR group per transverse image, on a grid that is complete on both sides."""
    matrix = matrix.directed()
    pattern = matrix.pattern
    rows, columns = matrix.entry_orbitals()
    image = np.repeat(pattern.shift, np.diff(pattern.offset), axis=0)
    most = np.abs(pattern.shift).max(axis=0, initial=0)
    n = pattern.n_orbitals
    for y in range(-most[1], most[1] + 1):
        for z in range(-most[2], most[2] + 1):
            chosen = (image == (0, y, z)).all(axis=1)
            block = scipy.sparse.csr_array(
                (matrix.values[chosen], (rows[chosen], columns[chosen])), shape=(n, n)
            )
            group = file.create_group(f"[0,{y},{z}]")
            group.attrs["format"], group.attrs["shape"] = "csr", block.shape
            for name in ("data", "indices", "indptr"):
                group.create_dataset(name, data=getattr(block, name))


def _symbol(species: Species) -> str:
    return GHOST if species.is_ghost else chemical_symbols[species.number]


def _xyz(structure: Structure) -> str:
    cell = " ".join(f"{value:.10f}" for value in structure.cell.ravel())
    lines = [str(structure.n_sites), f'Lattice="{cell}"']
    for index, position in zip(structure.species_index, structure.positions, strict=True):
        x, y, z = (f"{value:.10f}" for value in position)
        lines.append(f"{_symbol(structure.species_list[index])} {x} {y} {z}")
    return "\n".join(lines) + "\n"


def _config(
    matrix: BlockMatrix,
    lead: Structure,
    origin: FloatArray,
    kpoint_mesh: tuple[int, int, int],
    window_ev: tuple[float, float],
    n_energies: int,
) -> str:
    structure, basis = matrix.pattern.structure, matrix.pattern.basis
    orbitals = ", ".join(
        f'"{_symbol(species)}" = {basis.n_orbitals(species)}' for species in structure.species_list
    )
    lines = [
        'formalism = "wf"',
        "",
        "[device]",
        'transport_direction = "a"',
        f"num_orbitals_per_atom = {{ {orbitals} }}",
        f"kpoint_grid = {list(kpoint_mesh)}",
    ]
    for name, (start, sign) in _ends(structure, lead, origin).items():
        vectors = np.diag(lead.cell) * (sign, 1, 1)
        lines += [
            "",
            "[[device.contacts]]",
            f'name = "{name}"',
            f"origin = {np.round(start, 8).tolist()}",
            f"lattice_vectors = {np.diag(vectors).round(8).tolist()}",
            'transport_direction = "a"',
            "fermi_level = 0.0",
            "mid_gap_energy = 0.0",
        ]
    lines += [
        "",
        "[electron]",
        f"energy_window_min = {window_ev[0]}",
        f"energy_window_max = {window_ev[1]}",
        f"energy_window_num = {n_energies}",
    ]
    return "\n".join(lines) + "\n"


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise VcmbenchError(
            "export: h5py is not installed: pip install 'vcmbench[importers]'"
        ) from error
    return h5py
