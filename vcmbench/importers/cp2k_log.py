"""CP2K's output: what happened in a run and how its matrices are labelled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.structure import FloatArray

_SHELLS = "spdfghi"
_RUN_START = "PROGRAM STARTED AT"
_BANNER = re.compile(r"CP2K version (\S+)")
_SCF_STEP = re.compile(
    r"^\s+(\d+)\s+\S.*?\s(\d+\.\d+|\*+)\s+(-?\d+\.\d+)\s+(-?\d\.\d+E[+-]\d+)\s*$"
)
_IMAGES = re.compile(r"^\s*(KS|S) CSR write\|\s*(\d+) periodic images", re.MULTILINE)
_ORBITAL = re.compile(r"^\s+(\d+)\s+(\d+)\s+\d+([spdfghi])\S*\s+\S+\s+\S+\s*$", re.MULTILINE)
_MO_HEADER = re.compile(r"MO\| EIGENVALUES AND OCCUPATION NUMBERS(?: FOR K POINT (\d+))?")


class LogKind(NamedTuple):
    """An atomic kind as the run set it up."""

    label: str
    n_sites: int
    basis_set: str
    shells: tuple[int, ...]
    is_ghost: bool


@dataclass(frozen=True, eq=False)
class RunLog:
    """What an import needs of a log.

    Parameters
    ----------
    path : Path
        The file.
    version : str
        CP2K's version.
    kinds : dict of str to LogKind
        Shells of each kind in CP2K's order; empty where the log does not print them.
    positions : (n_sites, 3) float or None
        Å, six digits, where printed.
    n_electrons, n_orbitals : int
        Valence electrons and dimension of the matrices.
    kpoint_grid : (3,) int or None
        Mesh that the run used; None for Γ only.
    scf_steps : int
        Steps of the last self-consistency cycle.
    scf_residual : float
        Convergence measure of its last step.
    fermi_energy_ha : float or None
        Fermi energy, Hartree.
    images : dict of str to (n, 3) int
        Lattice shift of each image file, for "KS" and "S"; empty for a Γ-only run.
    eigenvalues_ha : dict of int to (n,) float
        Printed eigenvalues by number of the k-point (0: Γ only), Hartree, six digits.
    kpoints : (n_k, 3) float
        Fractional wave vectors of the run, five digits.
    """

    path: Path
    version: str
    kinds: dict[str, LogKind]
    positions: FloatArray | None
    n_electrons: int
    n_orbitals: int
    kpoint_grid: tuple[int, int, int] | None
    scf_steps: int
    scf_residual: float
    fermi_energy_ha: float | None
    images: dict[str, NDArray[np.int64]]
    eigenvalues_ha: dict[int, FloatArray]
    kpoints: FloatArray


def find_log(run_dir: Path, input_path: Path) -> Path:
    """Return the log of a run: the only CP2K output in the folder that is not empty."""
    candidates = [
        path
        for path in sorted(run_dir.iterdir())
        if path.suffix in (".log", ".out") and path != input_path and _is_cp2k_log(path)
    ]
    if len(candidates) != 1:
        raise bad_input(
            run_dir,
            "log",
            found=", ".join(path.name for path in candidates) or "no CP2K output",
            expected="one *.log or *.out",
        )
    return candidates[0]


def read_log(path: Path) -> RunLog:
    """Read the last run in a log.

    Raises
    ------
    VcmbenchError
        If the run did not end, did not converge or does not say what its matrices are.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    # CP2K appends to an existing file.
    text = text[text.rindex(_RUN_START) if _RUN_START in text else 0 :]
    banner = _BANNER.search(text)
    if banner is None:
        raise bad_input(path, "version", found="none", expected="the output of CP2K")
    if "PROGRAM ENDED AT" not in text:
        raise VcmbenchError(
            f"{path}: the run did not end: found no 'PROGRAM ENDED AT', expected a finished run"
        )
    steps, residual = _scf(text, path)
    grid = re.search(r"BRILLOUIN\| K-Point grid\s+(\d+)\s+(\d+)\s+(\d+)", text)
    fermi = re.findall(r"^\s*Fermi energy:\s+(-?\d+\.\d+)", text, re.MULTILINE)
    return RunLog(
        path=path,
        version=banner[1],
        kinds=_kinds(text),
        positions=_positions(text),
        n_electrons=_count(text, "Number of electrons", path),
        n_orbitals=_count(text, "Number of orbital functions", path),
        kpoint_grid=(int(grid[1]), int(grid[2]), int(grid[3])) if grid else None,
        scf_steps=steps,
        scf_residual=residual,
        fermi_energy_ha=float(fermi[-1]) if fermi else None,
        images=_images(text, path),
        eigenvalues_ha=_eigenvalues(text),
        kpoints=_kpoints(text),
    )


def _is_cp2k_log(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return _RUN_START in file.read(20_000)


def _count(text: str, name: str, path: Path) -> int:
    match = re.search(rf"^\s*{name}:\s+(\d+)\s*$", text, re.MULTILINE)
    if match is None:
        raise bad_input(path, name, found="none", expected="a number (PRINT_LEVEL LOW or more)")
    return int(match[1])


def _scf(text: str, path: Path) -> tuple[int, float]:
    """Return the steps and the last convergence measure of a converged run."""
    outcomes = re.findall(r"\*\*\* SCF run (converged in\s+(\d+) steps|NOT converged) \*\*\*", text)
    rows = [match for line in text.splitlines() if (match := _SCF_STEP.match(line))]
    if outcomes and rows and outcomes[-1][1]:
        return int(outcomes[-1][1]), float(rows[-1][2])
    reached = f"step {rows[-1][1]}, convergence {rows[-1][2]}" if rows else "no step"
    raise bad_input(path, "SCF", found=f"not converged ({reached})", expected="'SCF run converged'")


def _kinds(text: str) -> dict[str, LogKind]:
    start = text.find("ATOMIC KIND INFORMATION")
    stop = text.find("MOLECULE KIND INFORMATION", start)
    if start < 0:
        return {}
    section = text[start : stop if stop > 0 else None]
    header = re.compile(r"^\s*\d+\. Atomic kind: (\S+)\s+Number of atoms:\s+(\d+)", re.MULTILINE)
    headers = list(header.finditer(section))
    ends = [match.start() for match in headers[1:]] + [len(section)]
    kinds = {}
    for match, end in zip(headers, ends, strict=True):
        body = section[match.end() : end]
        basis = re.search(r"Orbital Basis Set\s+(\S+)", body)
        # A soft or auxiliary basis may follow; the orbital basis comes first.
        body = body[: body.find("Atomic covalent radius")]
        # Cartesian components repeat (set, shell): one l for each, in the order of CP2K's sets.
        shells = {(int(s), int(n)): _SHELLS.index(l) for s, n, l in _ORBITAL.findall(body)}
        if basis is None or not shells:
            continue
        kinds[match[1]] = LogKind(
            label=match[1],
            n_sites=int(match[2]),
            basis_set=basis[1],
            shells=tuple(shells[key] for key in sorted(shells)),
            is_ghost="GHOST atoms" in section[match.end() : end],
        )
    return kinds


def _positions(text: str) -> FloatArray | None:
    start = text.find("MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM")
    if start < 0:
        return None
    row = re.compile(r"^\s+\d+\s+\d+ \S+\s+\d+((?:\s+-?\d+\.\d+){3})", re.MULTILINE)
    stop = text.find("SCF PARAMETERS", start)
    rows = row.findall(text[start : stop if stop > 0 else None])
    return np.array([[float(word) for word in found.split()] for found in rows]).reshape(-1, 3)


def _images(text: str, path: Path) -> dict[str, NDArray[np.int64]]:
    """Map of each operator: the n-th file holds the image in row n - 1."""
    maps = {}
    for match in _IMAGES.finditer(text):
        # Numbers beyond 999 are printed as stars; the rows count.
        lines = text[match.end() :].splitlines()[2 : 2 + int(match[2])]
        rows = [re.match(r"^\s+(?:\d+|\*+)((?:\s+-?\d+){3})\s*$", line) for line in lines]
        if len(rows) < int(match[2]) or not all(rows):
            raise bad_input(
                path,
                f"{match[1]} CSR write",
                found="an incomplete table",
                expected=f"{match[2]} periodic images",
            )
        maps[match[1]] = np.array([[int(w) for w in row[1].split()] for row in rows if row])
    return maps


def _kpoints(text: str) -> FloatArray:
    rows = re.findall(r"^ BRILLOUIN\|\s+\d+\s+\d\.\d+((?:\s+-?\d\.\d+){3})\s*$", text, re.MULTILINE)
    return np.array([[float(word) for word in row.split()] for row in rows]).reshape(-1, 3)


def _eigenvalues(text: str) -> dict[int, FloatArray]:
    """Last printed eigenvalues of each k-point."""
    headers = list(_MO_HEADER.finditer(text))
    found = {}
    for match in headers:
        rows = []
        for line in text[match.end() :].splitlines()[1:]:
            words = line.split()
            if len(words) == 5 and words[1].isdigit():
                rows.append(float(words[2]))
            elif rows or (words and words[0] != "MO|"):
                break
        if rows:
            found[int(match[1] or 0)] = np.array(rows)
    return found
