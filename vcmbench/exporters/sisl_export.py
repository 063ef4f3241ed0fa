"""A device as a `sisl.Hamiltonian`: its tools apply, and it writes the files of TBtrans.

sisl and vcmbench share the definition H_ij(R) = ⟨φ_i,0|H|φ_j,R⟩ and the phase exp(2πi k·R) in
sisl's lattice gauge, so blocks are only put elsewhere, never changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from vcmbench.blocks import BlockMatrix
from vcmbench.errors import VcmbenchError, bad_input

if TYPE_CHECKING:
    import sisl


def to_sisl(hamiltonian: BlockMatrix, overlap: BlockMatrix) -> sisl.Hamiltonian:
    """Put H and S into a `sisl.Hamiltonian`.

    Parameters
    ----------
    hamiltonian, overlap : BlockMatrix
        H (eV, relative to the Fermi level) and S on one pattern, half stored or directed.

    Returns
    -------
    sisl.Hamiltonian
        Non-orthogonal, in eV, Fermi level 0. Atoms are in stored order and positions as stored; a
        ghost is a `sisl.AtomGhost` of the element whose basis it carries. Orbitals are in the
        order of `docs/conventions.md` and named l and m, their range is that of the blocks.

    Raises
    ------
    VcmbenchError
        If sisl is not installed.
    """
    sisl = _sisl()
    pattern = hamiltonian.pattern
    structure, basis = pattern.structure, pattern.basis
    # Orbitals overlap as far as blocks reach, each half of it.
    reach = float(pattern.distance.max()) / 2 + 1e-6
    kinds = []
    for species in structure.species_list:
        orbitals = [
            sisl.Orbital(reach, tag=f"{l} {m}")
            for l in basis.shells_of(species)
            for m in range(-l, l + 1)
        ]
        kind = sisl.AtomGhost if species.is_ghost else sisl.Atom
        kinds.append(kind(species.number, orbitals, tag=species.label))
    cells = 2 * np.abs(pattern.shift).max(axis=0, initial=0) + 1
    geometry = sisl.Geometry(
        structure.positions,
        [kinds[index] for index in structure.species_index],
        lattice=sisl.Lattice(structure.cell, nsc=cells.tolist()),
    )
    matrices = [_supercell(m, geometry.lattice) for m in (hamiltonian, overlap)]
    return sisl.Hamiltonian.fromsp(geometry, matrices[0], S=matrices[1])


def write_sisl(path: Path, hamiltonian: BlockMatrix, overlap: BlockMatrix) -> None:
    """Write a file that sisl knows by its suffix, such as ``.TSHS`` for TBtrans; all or nothing.

    Raises
    ------
    VcmbenchError
        If sisl is not installed or cannot write a Hamiltonian with this suffix.
    """
    sisl = _sisl()
    matrix = to_sisl(hamiltonian, overlap)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        matrix.write(temporary)
        temporary.replace(path)
    except (NotImplementedError, sisl.SislError, AttributeError, KeyError) as error:
        raise bad_input(
            path,
            "suffix",
            found=path.suffix or "none",
            expected=".TSHS or another that sisl writes a Hamiltonian to",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _supercell(matrix: BlockMatrix, lattice: Any) -> scipy.sparse.csr_array:
    """(n_orbitals, n_orbitals * n_cells) matrix with the columns of cell R where sisl has them."""
    matrix = matrix.directed()
    pattern = matrix.pattern
    cells, which = np.unique(pattern.shift, axis=0, return_inverse=True)
    index = np.asarray([lattice.sc_index(cell) for cell in cells])[which.ravel()]
    rows, columns = matrix.entry_orbitals()
    columns = columns + np.repeat(index, np.diff(pattern.offset)) * pattern.n_orbitals
    shape = (pattern.n_orbitals, pattern.n_orbitals * int(np.prod(lattice.nsc)))
    return scipy.sparse.coo_array((matrix.values, (rows, columns)), shape=shape).tocsr()


def _sisl() -> Any:
    try:
        import sisl
    except ModuleNotFoundError as error:
        raise VcmbenchError(
            "export: sisl is not installed: pip install 'vcmbench[sisl]'"
        ) from error
    return sisl
