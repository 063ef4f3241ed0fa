"""Overlap blocks of the bundled runs by PySCF, an oracle that shares no code with the importer.

    pip install pyscf
    CP2K_DATA_DIR=/usr/share/cp2k python tests/data/make_overlap_reference.py

writes overlap-reference.npz: for random pairs (i, j, R) within 9 Å of each run, with the input's
own coordinates, the block <i, 0| j, R>. Ghosts carry oxygen's basis.
"""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

import numpy as np
from pyscf import gto
from pyscf.gto.basis import parse_cp2k

HERE = Path(__file__).parent
RUNS = {"lead-tin": 60, "mesh-text": 60}
RANGE_ANG = 9.0
P_ORDER = [1, 2, 0]  # PySCF: x, y, z; CP2K: y, z, x. d and f agree.


def read_input(run: str):
    with tarfile.open(HERE / f"{run}.tar.xz") as archive:
        text = archive.extractfile("in.inp").read().decode()
    sides = [float(word) for word in re.search(r"ABC (.*)", text)[1].split()]
    kinds = {}
    for label, body in re.findall(r"&KIND (\w+)(.*?)&END KIND", text, re.DOTALL):
        element = re.search(r"ELEMENT (\w+)", body)
        kinds[label] = (
            element[1] if element else label,
            re.search(r"BASIS_SET (\S+)", body)[1],
        )
    coordinates = re.search(r"&COORD(.*?)&END COORD", text, re.DOTALL)[1].split()
    rows = np.array(coordinates).reshape(-1, 4)
    return np.diag(sides), [kinds[label] for label in rows[:, 0]], rows[:, 1:].astype(float)


def basis(element: str, name: str):
    """Entry of BASIS_MOLOPT, up to the next element."""
    text = (Path(os.environ["CP2K_DATA_DIR"]) / "BASIS_MOLOPT").read_text()
    entry = re.search(rf"^\s*{element}\s+{name}\b.*?(?=^\s*[A-Z#]|\Z)", text, re.DOTALL | re.M)
    return parse_cp2k.parse(entry[0])


def normalised_order(molecule):
    """CP2K's place of each of PySCF's orbitals."""
    order, start = [], 0
    for shell in range(molecule.nbas):
        l = molecule.bas_angular(shell)
        for _ in range(molecule.bas_nctr(shell)):
            within = P_ORDER if l == 1 else list(range(2 * l + 1))
            order += [start + m for m in within]
            start += 2 * l + 1
    return order


def block(first, second, vector):
    molecules = [
        gto.M(
            atom=[["H", position]],  # the nucleus plays no part
            basis={"H": basis(*kind)},
            unit="angstrom",
            spin=None,
            charge=0,
        )
        for kind, position in ((first, np.zeros(3)), (second, vector))
    ]
    norms = [np.sqrt(np.diag(m.intor("int1e_ovlp"))) for m in molecules]
    cross = gto.intor_cross("int1e_ovlp", *molecules) / np.outer(*norms)
    return cross[np.ix_(normalised_order(molecules[0]), normalised_order(molecules[1]))]


def main() -> None:
    arrays = {}
    for run, count in RUNS.items():
        cell, kinds, positions = read_input(run)
        rng = np.random.default_rng(0)
        keys, blocks = [], []
        while len(keys) < count:
            i, j = rng.integers(len(kinds), size=2)
            shift = rng.integers(-2, 3, size=3)
            vector = positions[j] + shift @ cell - positions[i]
            if np.linalg.norm(vector) < RANGE_ANG:
                keys.append([i, j, *shift])
                blocks.append(block(kinds[i], kinds[j], vector))
        arrays[f"{run}/keys"] = np.array(keys)
        arrays[f"{run}/sizes"] = np.array([b.shape for b in blocks])
        arrays[f"{run}/values"] = np.concatenate([b.ravel() for b in blocks])
    np.savez_compressed(HERE / "overlap-reference.npz", **arrays)


if __name__ == "__main__":
    main()
