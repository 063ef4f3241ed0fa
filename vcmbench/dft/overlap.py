"""Overlap of any structure in a MOLOPT basis, without a DFT run: two-centre integrals by PySCF."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.data import chemical_symbols
from scipy.interpolate import CubicSpline

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix, BlockPattern, Slab
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.harmonics import bond_frames, rotate_blocks
from vcmbench.structure import FloatArray

DATA_VARIABLE: Final = "CP2K_DATA_DIR"
"""Environment variable with the folder of CP2K's basis-set files."""
_DATA_FOLDERS: Final = ("/usr/share/cp2k", "/usr/share/cp2k/data")
_BASIS_FILE: Final = "BASIS_MOLOPT"
_STEP_ANG: Final = 0.02
"""Spacing of the tabulated integrals: the spline is good to 1e-8."""
_P_ORDER: Final = (1, 2, 0)
"""PySCF's p = (x, y, z) in our order (y, z, x); d and f agree."""
_CHUNK: Final = 20_000


def overlap(pattern: BlockPattern) -> BlockMatrix:
    """Overlap S on a block pattern.

    Integrals of every species pair are tabulated along the z axis, interpolated at the length of
    each block's vector and turned into its direction.

    Parameters
    ----------
    pattern : BlockPattern
        Blocks wanted; its basis must be named after a set in CP2K's ``BASIS_MOLOPT``.

    Returns
    -------
    BlockMatrix
        S, orbitals normalised as CP2K's; agrees with CP2K's own to 3e-8.

    Raises
    ------
    VcmbenchError
        If PySCF or CP2K's basis-set file is missing, or the file lacks the set.

    References
    ----------
    J. VandeVondele, J. Hutter, J. Chem. Phys. 127, 114105 (2007), the basis sets; Q. Sun et al.,
    J. Chem. Phys. 153, 024109 (2020), PySCF.
    """
    values = np.zeros(pattern.n_entries)
    longest = float(pattern.distance.max(initial=0.0))
    for slab in pattern.slabs:
        table = _table(slab, pattern.basis, longest)
        for blocks in _chunks(slab):
            entries = slice(int(pattern.offset[blocks.start]), int(pattern.offset[blocks.stop]))
            values[entries] = _blocks(pattern, slab, blocks, table).ravel()
    return BlockMatrix(pattern, values)


def _chunks(slab: Slab) -> Iterator[slice]:
    for start in range(slab.blocks.start, slab.blocks.stop, _CHUNK):
        yield slice(start, min(start + _CHUNK, slab.blocks.stop))


def _blocks(pattern: BlockPattern, slab: Slab, blocks: slice, table: CubicSpline) -> FloatArray:
    shells = [pattern.basis.shells_of(s) for s in (slab.species_i, slab.species_j)]
    apart = ~pattern.is_onsite[blocks]
    result: FloatArray = np.array(table(pattern.distance[blocks]))
    frames = bond_frames(pattern.vector[blocks][apart])
    result[apart] = rotate_blocks(result[apart], *shells, frames)
    return result


def _table(slab: Slab, basis: OrbitalBasis, longest_ang: float) -> CubicSpline:
    """(n_i, n_j) overlap of two sites on the z axis as a function of their distance."""
    distances = np.arange(0.0, longest_ang + 2 * _STEP_ANG, _STEP_ANG)
    first = _molecule(slab.species_i, basis, np.zeros(1))
    second = _molecule(slab.species_j, basis, distances)
    from pyscf import gto

    cross = gto.intor_cross("int1e_ovlp", first, second)
    cross = cross.reshape(slab.n_i, len(distances), slab.n_j).transpose(1, 0, 2)
    order_i, order_j = (_order(basis.shells_of(s)) for s in (slab.species_i, slab.species_j))
    norm_i, norm_j = (_norms(s, basis) for s in (slab.species_i, slab.species_j))
    cross = cross[:, order_i][:, :, order_j] / np.outer(norm_i, norm_j)
    return CubicSpline(distances, cross)


def _norms(species: Species, basis: OrbitalBasis) -> FloatArray:
    molecule = _molecule(species, basis, np.zeros(1))
    diagonal = np.diag(molecule.intor("int1e_ovlp"))
    return np.sqrt(diagonal[_order(basis.shells_of(species))])


def _order(shells: tuple[int, ...]) -> list[int]:
    """Place in PySCF's order of each of our orbitals."""
    order: list[int] = []
    for l in shells:
        within = _P_ORDER if l == 1 else range(2 * l + 1)
        order += [len(order) + m for m in within]
    return order


def _molecule(species: Species, basis: OrbitalBasis, heights_ang: FloatArray) -> Any:
    """PySCF's molecule of equal sites on the z axis; the nuclei play no part."""
    try:
        from pyscf import gto
    except ImportError as error:
        raise VcmbenchError(
            "overlap: PySCF is not installed: pip install 'vcmbench[dft]'"
        ) from error

    functions = _functions(basis.name, chemical_symbols[species.number])
    found = [int(shell[0]) for shell in functions for _ in shell[1][1:]]
    if tuple(found) != basis.shells_of(species):
        raise bad_input(
            f"basis {basis.name!r}",
            f"shells of {species.label}",
            found=basis.shells_of(species),
            expected=f"{tuple(found)} as in {_BASIS_FILE}",
        )
    atoms = [["H", (0.0, 0.0, float(height))] for height in heights_ang]
    return gto.M(atom=atoms, basis={"H": functions}, unit="angstrom", spin=None, charge=0)


@cache
def _functions(basis_set: str, symbol: str) -> list[Any]:
    from pyscf.gto.basis import parse_cp2k

    path = _basis_file()
    text = path.read_text(encoding="utf-8")
    name = re.escape(basis_set)
    entry = re.search(rf"^\s*{symbol}\s+{name}(?=\s).*?(?=^\s*[A-Z#]|\Z)", text, re.DOTALL | re.M)
    if entry is None:
        raise bad_input(path, f"{symbol} {basis_set}", found="no entry", expected="a basis set")
    return list(parse_cp2k.parse(entry[0]))


def _basis_file() -> Path:
    folders = [os.environ[DATA_VARIABLE]] if DATA_VARIABLE in os.environ else _DATA_FOLDERS
    for folder in folders:
        if (path := Path(folder) / _BASIS_FILE).is_file():
            return path
    raise VcmbenchError(
        f"{_BASIS_FILE}: found in none of {', '.join(folders)}: set {DATA_VARIABLE} to CP2K's data"
    )
