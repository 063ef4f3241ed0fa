"""A complete model: every block is copied from the most similar one that was seen in training.

"Similar" means: between the same species, with the closest bond vector. Run this file to fit it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

import vcmbench

TEMPLATES = "templates.npz"
SHELLS = {"N": [0, 1], "O": [0, 1], "O*": [0, 1], "Ti": [0, 0, 1, 2], "Hf": [0, 0, 1, 2]}
BASIS = vcmbench.OrbitalBasis.from_labels("SZV-MOLOPT-SR-GTH", SHELLS)


class NearestTemplate:
    """A fitted model.

    Parameters
    ----------
    basis : OrbitalBasis
        Orbitals of the species it knows.
    templates : mapping of str to array
        By species pair: ``"Hf-O/vector"`` (n, 3) in Å and ``"Hf-O/block"`` (n, n_i, n_j) in eV.
    """

    cutoff_ang = 8.0

    def __init__(self, basis: vcmbench.OrbitalBasis, templates: dict[str, np.ndarray]) -> None:
        self.basis, self.templates = basis, templates

    def predict(self, structure: vcmbench.Structure) -> vcmbench.BlockMatrix:
        """Hamiltonian in the Fermi gauge, eV."""
        pattern = vcmbench.BlockPattern.from_structure(structure, self.basis, self.cutoff_ang)
        matrix = vcmbench.BlockMatrix.zeros(pattern)
        for slab in pattern.slabs:  # the blocks of one species pair
            name = f"{slab.species_i.label}-{slab.species_j.label}"
            vectors = self.templates[f"{name}/vector"]
            _, nearest = KDTree(vectors).query(pattern.vector[slab.blocks])
            matrix.slab(slab)[:] = self.templates[f"{name}/block"][nearest]
        return matrix


def load(directory: Path) -> NearestTemplate:
    """Load the model of a directory; `model.yml` names this function."""
    with np.load(directory / TEMPLATES) as stored:
        templates = dict(stored)
    return NearestTemplate(BASIS, templates)


def fit(devices: list[vcmbench.Device]) -> dict[str, np.ndarray]:
    """Collect vectors and blocks closer than the cutoff, by species pair."""
    found: dict[str, list[np.ndarray]] = {}
    for device in devices:
        near = device.hamiltonian.truncate(NearestTemplate.cutoff_ang)
        pattern = near.pattern
        for slab in pattern.slabs:
            name = f"{slab.species_i.label}-{slab.species_j.label}"
            vectors, blocks = pattern.vector[slab.blocks], near.slab(slab)
            is_onsite = pattern.is_onsite[slab.blocks]
            if is_onsite.any():
                mean = blocks[is_onsite].mean(axis=0, keepdims=True)
                vectors = np.concatenate([vectors[~is_onsite], np.zeros((1, 3))])
                blocks = np.concatenate([blocks[~is_onsite], mean])
            found.setdefault(f"{name}/vector", []).append(vectors)
            found.setdefault(f"{name}/block", []).append(blocks)
            if slab.species_i == slab.species_j:  # the same bonds, seen from their other ends
                found[f"{name}/vector"].append(-vectors)
                found[f"{name}/block"].append(blocks.transpose(0, 2, 1))
    return {name: np.concatenate(parts).astype(np.float32) for name, parts in found.items()}


if __name__ == "__main__":
    training = [vcmbench.load("vcm-demo").device("device-a")]
    np.savez(Path(__file__).parent / TEMPLATES, **fit(training))
