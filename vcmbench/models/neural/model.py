"""A network's model directory: Slater–Koster out to 12 Å, the network's residual out to its cutoff.

model.yml
weights.safetensors                  the network, its settings and basis
slater-koster/weights.safetensors    what it is a residual to
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.documents import Document
from vcmbench.errors import VcmbenchError
from vcmbench.models import slater_koster
from vcmbench.models.interface import require_known_species
from vcmbench.models.neural.assembly import predicted_values
from vcmbench.models.neural.checkpoint import read_tensors, take, write_tensors
from vcmbench.models.neural.clock import StageClock
from vcmbench.models.neural.graph import SOURCE
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.models.neural.networks import NetworkKind
from vcmbench.models.neural.slater_koster import SlaterKosterBlocks
from vcmbench.models.slater_koster import SlaterKoster
from vcmbench.models.weights import WEIGHTS, BasisRecord
from vcmbench.structure import Structure

BASE: Final = "slater-koster"
"""Folder of the Slater–Koster weights within the model directory."""


class Metadata(Document):
    """What the weights file says beside the tensors."""

    format: Literal["vcmbench-network-1"]
    basis: BasisRecord
    network: NetworkKind


@dataclass(frozen=True)
class ResidualModel:
    """Slater–Koster and a network.

    Parameters
    ----------
    base : SlaterKoster
        Predicts every block out to the support.
    network : BlockNetwork
        Adds to those within its own cutoff.
    """

    base: SlaterKoster
    network: BlockNetwork
    _terms: SlaterKosterBlocks = field(init=False, repr=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        terms = SlaterKosterBlocks(self.base).to(self._accelerator)
        object.__setattr__(self, "_terms", terms)

    @property
    def _accelerator(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def cutoff_ang(self) -> float:
        """Range of the predicted blocks, Å."""
        return self.base.cutoff_ang

    @property
    def n_parameters(self) -> int:
        """Fitted and trained numbers."""
        trained = sum(p.numel() for p in self.network.parameters())
        return self.base.n_parameters + trained

    @property
    def basis(self) -> OrbitalBasis:
        """Orbitals of the species it knows."""
        return self.base.basis

    @property
    def reach_ang(self) -> float:
        """How far from either end of a block the sites lie that it depends on, Å."""
        return max(self.base.reach_ang, self.network.reach_ang)

    def predict(self, structure: Structure) -> BlockMatrix:
        """Hamiltonian in the Fermi gauge, eV.

        Raises
        ------
        VcmbenchError
            If the structure has a species that the model does not know.
        """
        return self.predict_within(structure, self.cutoff_ang)

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        """Blocks closer than a cutoff (Å)."""
        require_known_species(SOURCE, structure, self.basis)
        begin = time.perf_counter()
        pattern = BlockPattern.from_structure(
            structure, self.basis, min(cutoff_ang, self.cutoff_ang)
        )
        listed = time.perf_counter() - begin
        makers = (self._terms, self.network)
        covers = all(maker.message_cutoff_ang <= cutoff_ang for maker in makers)
        matrix = self._predicted(pattern, pattern if covers else None)
        self._seconds["neighbour list"] += listed
        return matrix

    def predict_blocks(self, pattern: BlockPattern) -> BlockMatrix:
        """Predict the blocks of a pattern, whose structure holds all sites within reach of them."""
        require_known_species(SOURCE, pattern.structure, self.basis)
        return self._predicted(pattern, None)

    def _predicted(self, pattern: BlockPattern, neighbours: BlockPattern | None) -> BlockMatrix:
        clock = StageClock(self._accelerator)
        with torch.inference_mode():
            values = predicted_values((self._terms, self.network), pattern, clock, neighbours)
        self._seconds.clear()
        self._seconds.update(clock.seconds)
        return BlockMatrix(pattern, values)

    def stage_seconds(self) -> dict[str, float]:
        """Time that each stage of the latest prediction took, s."""
        return dict(self._seconds)


def save(directory: Path, network: BlockNetwork, kind: NetworkKind) -> None:
    """Write the network of a model directory."""
    metadata = Metadata(
        format="vcmbench-network-1", basis=BasisRecord.of(network.basis), network=kind
    )
    write_tensors(directory / WEIGHTS, network.state_dict(), metadata)


def load(directory: Path, accelerator: str = "cpu") -> ResidualModel:
    """Load the model of a model directory.

    Raises
    ------
    VcmbenchError
        If weights are missing, damaged or of another format, or there is no such accelerator.
    """
    path = directory / WEIGHTS
    tensors, metadata = read_tensors(path, Metadata)
    network = metadata.network.make(metadata.basis.to_basis())
    network.load_state_dict(take(path, tensors, network.state_dict()))
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise VcmbenchError(f"{directory}: accelerator: found no CUDA device, expected one")
    return ResidualModel(slater_koster.load(directory / BASE), network.eval().to(accelerator))
