"""Import a finished CP2K run: input, log and printed matrices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import ase.io
import numpy as np
from numpy.typing import NDArray

from vcmbench.basis import OrbitalBasis, Species
from vcmbench.blocks import BlockMatrix
from vcmbench.device import SUPPORT_ANG, Kind, Provenance
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.importers import checks
from vcmbench.importers.checks import Check
from vcmbench.importers.cp2k_input import RunInput, find_input, read_input
from vcmbench.importers.cp2k_log import RunLog, find_log, read_log
from vcmbench.importers.cp2k_matrices import read_operator
from vcmbench.importers.entries import (
    Assembled,
    Entries,
    assemble,
    labelled_shifts,
    nearest_shifts,
)
from vcmbench.importers.molopt import molopt_shells
from vcmbench.importers.regions import (
    check_contacts,
    infer_regions,
    join_first_layer,
    parse_regions,
)
from vcmbench.importers.run import (
    Bands,
    ImportedRun,
    band_checks,
    checked_id,
    fermi_gauge,
    matrix_checks,
    refuse_short_cell,
    to_device,
)
from vcmbench.kpoints import monkhorst_pack
from vcmbench.structure import FloatArray, IntArray, Structure
from vcmbench.units import HARTREE_EV

_SAME_POSITION_ANG: Final = 1e-4
_HALF: Final = 1e-9
"""Fractional coordinates this close to ½ may be wrapped either way by the code's rounding."""


def import_cp2k(
    run_dir: Path | str,
    *,
    device_id: str | None = None,
    kind: Kind = "device",
    support_ang: float = SUPPORT_ANG,
    allow_folded: bool = False,
    check_electrons: bool = True,
) -> ImportedRun:
    """Import a finished CP2K run.

    Parameters
    ----------
    run_dir : Path or str
        Folder with one input, one log, the KS and S matrices, and a ``structure.extxyz`` or not.
    device_id : str, optional
        Name of the device; the folder's by default.
    kind : {"device", "bulk"}
        A device has regions; see `vcmbench.importers.regions`.
    support_ang : float
        Every pair of sites closer than this gets a block, Å.
    allow_folded : bool
        Accept a Γ-only run whose cell is shorter than twice the support: each pair's sum over
        images is then given to its nearest image.
    check_electrons : bool
        Diagonalise H(k) on the run's k-mesh and count the electrons: the one check of H as a
        whole (about ten seconds per k-point for 2,000 orbitals).

    Returns
    -------
    ImportedRun
        Energies in eV relative to the Fermi level. Sites keep the run's order.

    Raises
    ------
    VcmbenchError
        If the run is unfinished, unconverged, incomplete or not one run, or fails a check.
    """
    folder = Path(run_dir)
    run = read_input(find_input(folder))
    log = read_log(find_log(folder, run.path))
    require_same_run(run, log)
    structure = structure_of(folder, run, kind)
    basis = _basis(run, log)
    folded = run.kpoint_mesh is None
    mixed_images = folded and refuse_short_cell(
        str(run.path), structure, support_ang, allow_folded=allow_folded
    )
    hamiltonian, overlap = _matrices(folder, run, log, structure, basis)
    results = [
        Check("SCF converged, last residual", log.scf_residual, f"at most {run.eps_scf:g}", True),
        *matrix_checks(hamiltonian, overlap, mixed_images=mixed_images),
    ]
    checks.require(str(folder), results)

    raw_hamiltonian, raw_overlap = hamiltonian.matrix * HARTREE_EV, overlap.matrix
    if log.fermi_energy_ha is not None:
        fermi_energy_ev = log.fermi_energy_ha * HARTREE_EV
        raw_hamiltonian = fermi_gauge(raw_hamiltonian, raw_overlap, fermi_energy_ev)
    device = to_device(
        device_id=checked_id(device_id, folder.resolve().name),
        kind=kind,
        gauge="raw" if log.fermi_energy_ha is None else "fermi",
        folded=folded,
        hamiltonian=raw_hamiltonian,
        overlap=raw_overlap,
        provenance=_provenance(run, log),
        support_ang=support_ang,
    )
    kpoints, weights = monkhorst_pack(run.kpoint_mesh or (1, 1, 1))
    results.append(checks.positive_definite(device.overlap, kpoints))
    bands, reason = None, "not asked for"
    if log.fermi_energy_ha is None:
        reason = "no Fermi energy in the log"
    elif check_electrons:
        bands = Bands(
            kpoints,
            weights,
            run.smearing_temperature_k or 0.0,
            log.n_electrons,
            _printed_levels(log, kpoints),
        )
    results += band_checks(raw_hamiltonian, raw_overlap, bands, reason)
    checks.require(str(folder), results)
    return ImportedRun(device, raw_hamiltonian, raw_overlap, tuple(results))


def require_same_run(run: RunInput, log: RunLog) -> None:
    """Raise where the log is not that of the input."""
    counts = dict(Counter(label.upper() for label in run.labels))
    found = {label: kind.n_sites for label, kind in log.kinds.items()}
    if found and found != counts:
        raise _foreign(run, log, "sites by kind", found, counts)
    for label, wanted in run.kinds.items():
        kind = log.kinds.get(label.upper())
        if kind and (kind.basis_set, kind.is_ghost) != (wanted.basis_set, wanted.species.is_ghost):
            ghost = ", ghost" if kind.is_ghost else ""
            raise _foreign(run, log, f"kind {label}", kind.basis_set + ghost, wanted.basis_set)
    if log.positions is not None:
        distance = _periodic_distance(log.positions, run.positions, run.cell)
        if len(distance) != len(run.labels) or distance.max() > _SAME_POSITION_ANG:
            raise _foreign(run, log, "coordinates", "other positions", "those of the input")
    if log.kpoint_grid != run.kpoint_mesh:
        raise _foreign(run, log, "K-point grid", log.kpoint_grid, run.kpoint_mesh)
    if run.n_electrons not in (None, log.n_electrons):
        raise _foreign(run, log, "electrons", log.n_electrons, run.n_electrons)


def _foreign(
    run: RunInput, log: RunLog, what: str, found: object, expected: object
) -> VcmbenchError:
    return bad_input(
        log.path, what, found=found, expected=f"{expected} as in {run.path.name}: another run's log"
    )


def _periodic_distance(first: FloatArray, second: FloatArray, cell: FloatArray) -> FloatArray:
    """(n,) distances modulo lattice vectors; empty if there are not as many of both."""
    if first.shape != second.shape:
        return np.empty(0)
    fractional = (first - second) @ np.linalg.inv(cell)
    return np.linalg.norm((fractional - np.round(fractional)) @ cell, axis=1)


def structure_of(folder: Path, run: RunInput, kind: Kind) -> Structure:
    """Sites of a run in its own order, with regions if it is a device.

    Parameters
    ----------
    folder : Path
        Folder of the run; a ``structure.extxyz`` in it must agree, and its column ``region``, if
        it has one, names the regions.
    run : RunInput
        The input, whose coordinates are the truth.
    kind : {"device", "bulk"}
        For a device the first layer is joined (`join_first_layer`); else positions stay.
    """
    structure = Structure.create(
        [species.number for species in run.species],
        join_first_layer(run.positions, run.cell) if kind == "device" else run.positions,
        run.cell,
        pbc=run.pbc,
        is_ghost=[species.is_ghost for species in run.species],
    )
    region = _annotated_regions(folder / "structure.extxyz", structure)
    if kind == "bulk":
        return structure
    if region is None:
        region = infer_regions(structure, str(run.path))
    check_contacts(structure, region, str(folder))
    return replace(structure, region=region)


def _annotated_regions(path: Path, structure: Structure) -> NDArray[np.int8] | None:
    """Compare the run's sites with those of an extended XYZ file; its regions, if it has any."""
    if not path.exists():
        return None
    try:
        atoms = ase.io.read(path, format="extxyz")
    except Exception as error:  # ASE raises whatever its parsers do
        raise VcmbenchError(f"{path}: cannot be read as extended XYZ ({error})") from error
    expected = f"{structure.n_sites} sites as in the input"
    if len(atoms) != structure.n_sites:
        raise bad_input(path, "sites", found=len(atoms), expected=expected)
    ghost = atoms.arrays.get("ghost", structure.is_ghost)
    differ = (atoms.numbers != structure.numbers) | (ghost.astype(bool) != structure.is_ghost)
    if differ.any():
        site = int(differ.argmax())
        raise bad_input(
            path,
            f"site {site + 1}",
            found=f"{atoms.symbols[site]}{', ghost' if ghost[site] else ''}",
            expected=structure.species_list[structure.species_index[site]].label,
        )
    distance = _periodic_distance(atoms.positions, structure.positions, structure.cell)
    cell_error = np.abs(atoms.cell.array - structure.cell).max()
    if max(cell_error, distance.max()) > _SAME_POSITION_ANG:
        raise bad_input(
            path,
            "positions and cell",
            found=f"differences of {distance.max():.4g} and {cell_error:.4g} Å",
            expected="those of the input",
        )
    if "region" not in atoms.arrays:
        return None
    return parse_regions(atoms.arrays["region"], str(path))


def _basis(run: RunInput, log: RunLog) -> OrbitalBasis:
    shells: dict[Species, tuple[int, ...]] = {}
    names: dict[Species, str] = {}
    for label, kind in run.kinds.items():
        printed = log.kinds.get(label.upper())
        ls = printed.shells if printed else molopt_shells(kind.basis_set, kind.species.number)
        if names.setdefault(kind.species, kind.basis_set) != kind.basis_set:
            raise bad_input(
                run.path,
                f"&KIND {label}",
                found=kind.basis_set,
                expected=f"{names[kind.species]}, as other {kind.species.label} sites",
            )
        shells[kind.species] = ls
    basis = OrbitalBasis("+".join(sorted(set(names.values()))), shells)
    n_orbitals = sum(basis.n_orbitals(species) for species in run.species)
    if n_orbitals != log.n_orbitals:
        raise bad_input(
            log.path, "Number of orbital functions", found=log.n_orbitals, expected=n_orbitals
        )
    return basis


def _matrices(
    folder: Path, run: RunInput, log: RunLog, structure: Structure, basis: OrbitalBasis
) -> tuple[Assembled, Assembled]:
    """Read H (Hartree) and S, each with its own image map, relative to the stored positions."""

    def entries(operator: str) -> Entries:
        images = log.images.get(operator)
        if (images is None) != (run.kpoint_mesh is None):
            raise bad_input(
                run.path,
                f"&{operator}_CSR_WRITE",
                found="no image map in the log",
                expected="REAL_SPACE, which lists the images",
            )
        upper = run.prints[operator].upper_triangle
        return read_operator(folder, run.project, operator, images, upper_triangle=upper)

    if run.kpoint_mesh is None:
        rule = nearest_shifts(structure)
        h, s = (assemble(entries(name), structure, basis, rule) for name in ("KS", "S"))
        return h, s
    listed = entries("S")
    site_shift = wrapping(structure)
    s = assemble(listed, structure, basis, labelled_shifts(listed.images, site_shift))
    moved = misplaced(s.matrix, site_shift)
    if moved.any():
        site_shift = site_shift + moved
        s = assemble(listed, structure, basis, labelled_shifts(listed.images, site_shift))
    listed = entries("KS")
    return assemble(listed, structure, basis, labelled_shifts(listed.images, site_shift)), s


def wrapping(structure: Structure) -> IntArray:
    """(n_sites, 3) lattice vectors n that CP2K subtracts from each position.

    CP2K's images refer to positions wrapped to fractional coordinates around zero, whatever the
    input's; it rounds half away from zero.
    """
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    nearest = np.copysign(np.floor(np.abs(fractional) + 0.5), fractional)
    return nearest.astype(np.int64) * structure.pbc


def misplaced(overlap: BlockMatrix, site_shift: IntArray) -> IntArray:
    """Find the sites at half a lattice vector that CP2K's rounding wrapped the other way.

    A coordinate of exactly L/2 (every ideal TiN cell has some) ends at +L/2 or -L/2 by the last
    bit. The overlap tells: with the wrong choice a site's overlaps with the others lie one
    lattice vector away, and the second moment of S² with the distance grows.

    Parameters
    ----------
    overlap : BlockMatrix
        S, labelled with `site_shift`.
    site_shift : (n_sites, 3) int
        `wrapping` of the structure.

    Returns
    -------
    (n_sites, 3) int
        Correction to `site_shift`.
    """
    pattern = overlap.pattern
    structure = pattern.structure
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    excess = fractional - site_shift
    is_half = np.abs(np.abs(excess) - 0.5) < _HALF
    correction = np.where(is_half, np.sign(excess), 0).astype(np.int64)
    weight = np.add.reduceat(overlap.values**2, pattern.offset[:-1])
    moved = np.zeros_like(correction)
    for axis, lattice_vector in enumerate(structure.cell):
        half = is_half[pattern.pair, axis]
        growth = np.zeros(structure.n_sites)
        for end, sign in ((0, 1.0), (1, -1.0)):
            # Seen from this end of the block, the other end moves by correction·lattice_vector.
            site = pattern.pair[:, end]
            chosen = half[:, end] & ~half[:, 1 - end]
            along = sign * correction[site, axis] * (pattern.vector @ lattice_vector)
            change = weight * (2 * along + lattice_vector @ lattice_vector)
            growth += np.bincount(site[chosen], weights=change[chosen], minlength=structure.n_sites)
        moved[:, axis] = np.where(growth < 0, correction[:, axis], 0)
    return moved


def _printed_levels(log: RunLog, kpoints: FloatArray) -> list[FloatArray]:
    """Find the printed eigenvalues at `kpoints`, eV relative to E_F; empty unless all are there."""
    if log.fermi_energy_ha is None or not log.eigenvalues_ha:
        return []
    listed = log.kpoints if len(log.kpoints) else np.zeros((1, 3))
    numbers = [1 + n for n in range(len(listed))] if len(log.kpoints) else [0]
    levels = []
    for kpoint in kpoints:
        same = [
            number
            for number, other in zip(numbers, listed, strict=True)
            if number in log.eigenvalues_ha
            and min(np.abs(kpoint - other).max(), np.abs(kpoint + other).max()) < 1e-4
        ]
        if not same:
            return []
        levels.append((log.eigenvalues_ha[same[0]] - log.fermi_energy_ha) * HARTREE_EV)
    return levels


def _provenance(run: RunInput, log: RunLog) -> Provenance:
    used = {kind.species: kind for kind in run.kinds.values()}
    return Provenance(
        code="CP2K",
        code_version=log.version,
        functional=run.functional,
        basis_sets={s.label: kind.basis_set for s, kind in sorted(used.items())},
        pseudopotentials={s.label: k.potential for s, k in sorted(used.items()) if k.potential},
        cutoff_ry=run.cutoff_ry,
        rel_cutoff_ry=run.rel_cutoff_ry,
        eps_default=run.eps_default,
        kpoint_mesh=run.kpoint_mesh or (1, 1, 1),
        smearing_temperature_k=run.smearing_temperature_k,
        eps_scf=run.eps_scf,
        scf_steps=log.scf_steps,
        scf_residual=log.scf_residual,
        fermi_energy_ev=(None if log.fermi_energy_ha is None else log.fermi_energy_ha * HARTREE_EV),
        n_electrons=log.n_electrons,
        input_text=run.text,
    )
