"""CP2K's restart file of a k-point run: the density matrix, one dense image after another.

Fortran records (4-byte length, payload, length), little-endian: version; sites, orbitals, largest
number of basis sets and of shells per set; sets of each site; shells of each set; orbitals of each
shell; then for each spin (spin, spins, images), and for each image (number, X, Y, Z) and one record
for each column. CP2K finds an image by its X, Y, Z; what the file lacks stays zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from vcmbench.blocks import BlockMatrix
from vcmbench.dft.images import wrapping
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.store.content import atomic_file
from vcmbench.structure import FloatArray

_VERSION: Final = 1


def write_restart(path: Path, density: BlockMatrix) -> None:
    """Write a density matrix that CP2K reads with ``SCF_GUESS RESTART``.

    Parameters
    ----------
    path : Path
        Target, by convention ``*-RESTART.kp``: 8 N² bytes for each of some 60 images.
    density : BlockMatrix
        P, half stored (`vcmbench.dft.density`); its sites are those of the input, in its order.
        Every species must have one basis set, as MOLOPT-SR ones do.
    """
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        _write_header(file, density)
        images = _Images(density)
        _record(file, [1, 1, len(images.cells)])
        for number, cell in enumerate(images.cells):
            _record(file, [number + 1, *cell])
            _write_columns(file, images.dense(number))


def _write_header(file: BinaryIO, density: BlockMatrix) -> None:
    pattern = density.pattern
    structure, basis = pattern.structure, pattern.basis
    shells = [basis.shells_of(species) for species in structure.species_list]
    widest = max(len(ls) for ls in shells)
    orbitals = np.zeros((structure.n_sites, widest), np.int32)
    for site, species in enumerate(structure.species_index):
        orbitals[site, : len(shells[species])] = [2 * l + 1 for l in shells[species]]
    _record(file, [_VERSION])
    _record(file, [structure.n_sites, pattern.n_orbitals, 1, widest])
    _record(file, np.ones(structure.n_sites))
    _record(file, (orbitals > 0).sum(axis=1))
    _record(file, orbitals)


def _record(file: BinaryIO, values: Any) -> None:
    payload = np.asarray(values).astype("<i4").tobytes()
    length = np.array([len(payload)], "<i4").tobytes()
    file.write(length + payload + length)


def _write_columns(file: BinaryIO, image: FloatArray) -> None:
    n_orbitals = len(image)
    columns = np.empty(n_orbitals, _column_record(n_orbitals))
    columns["start"] = columns["stop"] = 8 * n_orbitals
    columns["column"] = image.T
    columns.tofile(file)


class _Images:
    """Blocks sorted into CP2K's images.

    DBCSR keeps one of (i, j, R) and (j, i, −R): the one with the lower site first where i + j is
    even, the other where it is odd. The files repeat it, transposed, on the other side of the
    diagonal of the same image. A site's coupling to its own images stands in R and −R.

    Attributes
    ----------
    cells : (n_images, 3) int
        X, Y, Z of each image that holds a block.
    """

    def __init__(self, density: BlockMatrix) -> None:
        pattern = density.pattern
        self._density = density
        site_shift = wrapping(pattern.structure)
        i, j = pattern.pair.T
        image = pattern.shift + site_shift[j] - site_shift[i]
        image[(i > j) ^ ((i + j) % 2 == 1)] *= -1
        self._itself = i == j
        every = np.concatenate([image, -image[self._itself]])
        self.cells, index = np.unique(every, axis=0, return_inverse=True)
        self._image, self._opposite = np.split(index.ravel(), [len(image)])
        self._row, self._column = density.entry_orbitals()

    def dense(self, number: int) -> FloatArray:
        """(n_orbitals, n_orbitals) matrix of one image."""
        pattern, values = self._density.pattern, self._density.values
        dense = np.zeros((pattern.n_orbitals, pattern.n_orbitals))
        own = self._image == number
        turned = own.copy()
        turned[self._itself] = self._opposite == number
        for blocks, transposed in ((turned, True), (own, False)):
            entries = pattern.entry_mask(blocks)
            rows, columns = self._row[entries], self._column[entries]
            dense[(columns, rows) if transposed else (rows, columns)] = values[entries]
        return dense


def adapt_restart(source: Path, target: Path, factor: FloatArray) -> None:
    """Copy a saved density, scaling every orbital.

    Parameters
    ----------
    source, target : Path
        Restart files, of this module or of CP2K.
    factor : (n_orbitals,) float
        P_ab becomes factor_a P_ab factor_b.

    Raises
    ------
    VcmbenchError
        If the file is no restart file of so many orbitals, or is cut short.
    """
    with source.open("rb") as old, atomic_file(target) as temporary, temporary.open("wb") as new:
        header = _read_header(old, source)
        n_orbitals, n_images = int(header[1][1]), int(header[-1][2])
        if n_orbitals != len(factor):
            raise bad_input(source, "orbitals", found=n_orbitals, expected=len(factor))
        for record in header:
            _record(new, record)
        for _ in range(n_images):
            _record(new, _read_record(old, source))
            columns = np.fromfile(old, _column_record(n_orbitals), n_orbitals)
            if len(columns) != n_orbitals:
                raise VcmbenchError(f"{source}: cut short in the middle of an image")
            columns["column"] *= factor * factor[:, None]
            columns.tofile(new)


def is_complete(path: Path) -> bool:
    """Whether a restart file is there and whole.

    CP2K writes it in place: interrupted there, it leaves half a file.
    """
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            header = _read_header(file, path)
        except VcmbenchError:
            return False
        n_orbitals, n_images = int(header[1][1]), int(header[-1][2])
        image_bytes = 4 * 4 + 8 + n_orbitals * _column_record(n_orbitals).itemsize
        return path.stat().st_size == file.tell() + n_images * image_bytes


def _read_header(file: BinaryIO, source: Path) -> list[NDArray[np.int32]]:
    """Read the six records before the first image."""
    header = [_read_record(file, source) for _ in range(6)]
    if [len(header[place]) for place in (0, 1, 5)] != [1, 4, 3]:
        raise VcmbenchError(f"{source}: no restart file of a CP2K k-point run, or cut short")
    return header


def _read_record(file: BinaryIO, source: Path) -> NDArray[np.int32]:
    length = int.from_bytes(file.read(4), "little")
    payload = file.read(length)
    if len(payload) != length or int.from_bytes(file.read(4), "little") != length:
        raise VcmbenchError(f"{source}: no restart file of a CP2K k-point run, or cut short")
    return np.frombuffer(payload, "<i4")


def _column_record(n_orbitals: int) -> np.dtype[Any]:
    return np.dtype([("start", "<i4"), ("column", "<f8", n_orbitals), ("stop", "<i4")])
