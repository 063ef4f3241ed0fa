"""Import a folder in the format of DeepH-pack.

``hamiltonians.h5`` (eV) and ``overlaps.h5`` hold one block per key ``[Rx, Ry, Rz, i, j]`` with
sites from 1 and R relative to the stored positions; ``lat.dat`` and ``site_positions.dat`` (Å)
hold vectors as columns; ``element.dat``, ``orbital_types.dat`` (l of each shell, one line per
site) and ``info.json`` the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockPattern
from vcmbench.device import SUPPORT_ANG, Provenance
from vcmbench.errors import VcmbenchError, bad_input, unknown_name
from vcmbench.importers import checks
from vcmbench.importers.checks import Limits
from vcmbench.importers.entries import Entries, assemble, labelled_shifts
from vcmbench.importers.run import (
    ImportedRun,
    band_checks,
    checked_id,
    fermi_gauge,
    matrix_checks,
    to_device,
)
from vcmbench.structure import IntArray, Structure

OrbitalOrder = Literal["openmx", "m-ascending"]
"""``openmx``: p = (x, y, z), d = (z2, x2-y2, xy, xz, yz), f = (m = 0, 1, -1, 2, -2, 3, -3), what
DeepH-pack's own interfaces write. ``m-ascending``: m = -l ... +l, as here."""

_OPENMX: Final = {
    0: (0,),
    1: (1, -1, 0),
    2: (0, 2, -2, 1, -1),
    3: (0, 1, -1, 2, -2, 3, -3),
}
"""m of OpenMX's orbitals; their phases are the usual ones."""
_LIMITS: Final = Limits(hermitian=1e-5, overlap=1e-3, close_ang=3.0)
"""Numerical orbitals end at about 3 Å and are tabulated, some in single precision."""


def import_deeph(
    folder: Path | str,
    *,
    device_id: str | None = None,
    orbital_order: OrbitalOrder | None = None,
    support_ang: float = SUPPORT_ANG,
    code: str = "unknown",
    source: str | None = None,
) -> ImportedRun:
    """Import a DeepH-style folder as bulk data.

    Parameters
    ----------
    folder : Path or str
        The folder.
    device_id : str, optional
        Name; the folder's by default.
    orbital_order : {"openmx", "m-ascending"}, optional
        Order within a shell, unless ``info.json`` has an ``orbital_order``.
    support_ang : float
        Every pair of sites closer than this gets a block, Å.
    code : str
        Electronic-structure code behind the data.
    source : str, optional
        Citation or address.

    Returns
    -------
    ImportedRun
        Relative to the Fermi level where ``info.json`` has a ``fermi_level``, else raw.

    Raises
    ------
    VcmbenchError
        If a file is missing or contradicts another, the orbital order is unknown, the data are
        spinful or a check fails.
    """
    path = Path(folder)
    info = _info(path / "info.json")
    order = _order(orbital_order, info, path)
    structure, basis = _sites(path)
    to_ours = _orbital_map(structure, basis, order)
    hamiltonian, overlap = (
        assemble(entries, structure, basis, labelled_shifts(entries.images, _no_shift(structure)))
        for entries in (
            _entries(path / name, structure, basis, to_ours)
            for name in ("hamiltonians.h5", "overlaps.h5")
        )
    )
    results = matrix_checks(hamiltonian, overlap, mixed_images=False, limits=_LIMITS)
    checks.require(str(path), results)
    raw_hamiltonian, raw_overlap = hamiltonian.matrix, overlap.matrix
    fermi_level = info.get("fermi_level")
    if fermi_level is not None:
        raw_hamiltonian = fermi_gauge(raw_hamiltonian, raw_overlap, float(fermi_level))
    device = to_device(
        device_id=checked_id(device_id, path.resolve().name),
        kind="bulk",
        gauge="raw" if fermi_level is None else "fermi",
        folded=False,
        hamiltonian=raw_hamiltonian,
        overlap=raw_overlap,
        provenance=Provenance(
            code=code,
            fermi_energy_ev=None if fermi_level is None else float(fermi_level),
            source=source,
        ),
        support_ang=support_ang,
    )
    results.append(checks.positive_definite(device.overlap, np.zeros((1, 3))))
    results += band_checks(raw_hamiltonian, raw_overlap, None, "the format has no electron count")
    checks.require(str(path), results)
    return ImportedRun(device, raw_hamiltonian, raw_overlap, tuple(results))


def openmx_permutation(l: int) -> IntArray:
    """(2l + 1,) place of each OpenMX orbital in the order m = -l ... +l."""
    if l not in _OPENMX:
        raise VcmbenchError(f"orbital order 'openmx': found l = {l}, expected at most 3")
    return np.array(_OPENMX[l]) + l


def _info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VcmbenchError(f"{path}: cannot be read as JSON ({error})") from error
    if info.get("isspinful"):
        raise bad_input(path, "isspinful", found=True, expected="data without spin")
    return info


def _order(given: str | None, info: dict[str, Any], path: Path) -> OrbitalOrder:
    order = given or info.get("orbital_order")
    known: tuple[OrbitalOrder, ...] = get_args(OrbitalOrder)
    if order is None:
        raise bad_input(
            path,
            "orbital_order",
            found="none given and none in info.json",
            expected=f"one of {', '.join(known)}: DeepH-pack's interfaces write openmx",
        )
    for name in known:
        if name == order:
            return name
    raise unknown_name("orbital order", str(order), known)


def _numbers(path: Path, kind: type[float] | type[int]) -> NDArray[Any]:
    try:
        return np.loadtxt(path, dtype=kind, ndmin=1)
    except (OSError, ValueError) as error:
        raise VcmbenchError(f"{path}: cannot be read as numbers ({error})") from error


def _sites(path: Path) -> tuple[Structure, OrbitalBasis]:
    cell = _numbers(path / "lat.dat", float).T
    positions = _numbers(path / "site_positions.dat", float)
    positions = positions.reshape(3, -1).T if positions.size % 3 == 0 else positions
    structure = Structure.create(_numbers(path / "element.dat", int), positions, cell)
    types = path / "orbital_types.dat"
    try:
        lines = types.read_text(encoding="utf-8").split("\n")
        per_site = [tuple(int(word) for word in line.split()) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise VcmbenchError(f"{types}: cannot be read as angular momenta ({error})") from error
    if len(per_site) != structure.n_sites:
        raise bad_input(types, "lines", found=len(per_site), expected=structure.n_sites)
    shells: dict[Species, tuple[int, ...]] = {}
    for number, ls in zip(structure.numbers.tolist(), per_site, strict=True):
        if shells.setdefault(Species(number, False), ls) != ls:
            label = Species(number, False).label
            raise bad_input(types, f"shells of {label}", found=ls, expected="the same everywhere")
    return structure, OrbitalBasis("unknown", shells)


def _no_shift(structure: Structure) -> IntArray:
    return np.zeros((structure.n_sites, 3), dtype=np.int64)


def _orbital_map(structure: Structure, basis: OrbitalBasis, order: OrbitalOrder) -> IntArray:
    """(n_orbitals,) our index of each orbital of the folder."""
    local = {}
    for species in basis.species:
        places = [
            part.start + (openmx_permutation(l) if order == "openmx" else np.arange(2 * l + 1))
            for l, part in basis.shell_slices(species)
        ]
        local[species] = np.concatenate(places)
    per_site = [local[structure.species_list[s]] for s in structure.species_index]
    sizes = np.array([len(part) for part in per_site])
    return np.concatenate(per_site) + np.repeat(np.cumsum(sizes) - sizes, sizes)


def _entries(path: Path, structure: Structure, basis: OrbitalBasis, to_ours: IntArray) -> Entries:
    keys, blocks = _read_blocks(path)
    images, image = np.unique(keys[:, :3], axis=0, return_inverse=True)
    i, j = keys[:, 3] - 1, keys[:, 4] - 1
    if keys[:, 3:].min() < 1 or keys[:, 3:].max() > structure.n_sites:
        raise bad_input(
            path,
            "keys",
            found=f"sites {keys[:, 3:].min()}..{keys[:, 3:].max()}",
            expected=f"1..{structure.n_sites}",
        )
    sites = BlockPattern(structure, basis, np.empty((0, 2), np.int32), np.empty((0, 3), np.int32))
    shapes = np.array([block.shape for block in blocks])
    wanted = np.stack([sites.site_orbitals[i], sites.site_orbitals[j]], axis=1)
    if shapes.shape != wanted.shape or (shapes != wanted).any():
        first = int((shapes != wanted).any(axis=1).argmax()) if shapes.ndim == 2 else 0
        raise bad_input(
            path,
            f"block {keys[first].tolist()}",
            found=f"shape {blocks[first].shape}",
            expected=tuple(wanted[first].tolist()),
        )
    sizes = wanted.prod(axis=1)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, column = np.divmod(within, np.repeat(wanted[:, 1], sizes))
    first_orbital = sites.orbital_offset
    return Entries(
        source=str(path),
        row=to_ours[np.repeat(first_orbital[i], sizes) + row].astype(np.int32),
        column=to_ours[np.repeat(first_orbital[j], sizes) + column].astype(np.int32),
        value=np.concatenate([block.ravel() for block in blocks]).astype(np.float64),
        image=np.repeat(image, sizes).astype(np.int32),
        images=images,
        upper_triangle=False,
    )


def _read_blocks(path: Path) -> tuple[IntArray, list[NDArray[Any]]]:
    try:
        import h5py
    except ImportError:
        raise VcmbenchError("DeepH data need h5py: pip install 'vcmbench[importers]'") from None
    try:
        # One HDF5 data set per block is the format's; it cannot be read otherwise.
        with h5py.File(path, "r") as file:
            names = list(file)
            blocks = [file[name][()] for name in names]
        keys = np.array([json.loads(name) for name in names], dtype=np.int64)
    except (OSError, ValueError, TypeError) as error:
        raise VcmbenchError(f"{path}: cannot be read as DeepH blocks ({error})") from error
    if keys.ndim != 2 or keys.shape[1] != 5:
        raise bad_input(path, "keys", found=names[:1], expected="[Rx, Ry, Rz, i, j]")
    if any(np.iscomplexobj(block) for block in blocks):
        raise bad_input(path, "blocks", found="complex values", expected="data without spin")
    return keys, blocks
