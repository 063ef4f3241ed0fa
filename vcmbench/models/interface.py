"""What a model is: something that predicts H from a structure, and the card that describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from vcmbench.basis import OrbitalBasis
from vcmbench.blocks import BlockMatrix
from vcmbench.device import SUPPORT_ANG, Device
from vcmbench.errors import VcmbenchError
from vcmbench.store.predictions import read_predictions
from vcmbench.structure import Structure

CARD = "model.yml"
"""Name of the card within a model directory."""

ModelKind = Literal["baseline", "directory", "callable", "predictions"]


@runtime_checkable
class HamiltonianModel(Protocol):
    """Predicts H from numbers, ghosts, positions, cell and regions, and from nothing else.

    A model may also offer ``predict_within(structure, cutoff_ang)``, which leaves out blocks
    beyond a cutoff, and ``stage_seconds()``, the time that each stage of the latest prediction
    took: the throughput score uses them.
    """

    @property
    def cutoff_ang(self) -> float:
        """Range of the predicted blocks, Å; blocks beyond are predicted to be zero."""
        ...

    def predict(self, structure: Structure) -> BlockMatrix:
        """Hamiltonian in the Fermi gauge, eV, half stored or directed.

        Parameters
        ----------
        structure : Structure
            Sites of a device.

        Returns
        -------
        BlockMatrix
            On the sites of `structure`, in their order.
        """
        ...


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Strict):
    """What a model was fitted to, and how well it fits that."""

    dataset: str
    """Name of the release."""
    version: str
    """Version of the release."""
    digest: str
    """Digest of the release."""
    devices: dict[str, str] = Field(min_length=1)
    """Content digest of every device trained on."""
    mae_mev: float
    """Mean absolute error on these devices, blocks closer than 8 Å, meV."""
    mae_full_mev: float
    """Mean absolute error on these devices over the whole support, meV."""


class Cost(_Strict):
    """What the training took."""

    hardware: str
    """Processor or accelerator, and how many."""
    hours: PositiveFloat
    """Wall time."""


class ModelCard(_Strict):
    """``model.yml``: what a model directory holds and where it comes from."""

    schema_version: Literal[1]
    name: str = Field(min_length=1)
    """Name in tables."""
    version: str
    """Version of the weights."""
    description: str
    """What the model does, in a sentence or two."""
    loader: str = Field(pattern=r"^[\w./-]+:\w+$")
    """Function that makes the model from its directory: ``package.module:function``, or
    ``model.py:function`` for a file in the directory itself."""
    authors: list[str] = Field(min_length=1)
    license: str
    """SPDX identifier of the weights' licence."""
    inputs: list[Literal["structure"]] = ["structure"]
    """What the model sees; nothing but the structure is handed out so far."""
    cutoff_ang: PositiveFloat
    """Range of the predicted blocks, Å."""
    n_parameters: int = Field(ge=0)
    """Fitted numbers."""
    training: Training | None = None
    cost: Cost | None = None
    references: list[str] = []
    """Papers and addresses."""


@dataclass(frozen=True)
class LoadedModel:
    """A model as given on the command line.

    Parameters
    ----------
    name : str
        Name in tables.
    kind : {"baseline", "directory", "callable", "predictions"}
        How it was given.
    model : HamiltonianModel
        What predicts; a `PredictionsModel` for a predictions folder.
    card : ModelCard, optional
        Its card; a callable and a predictions folder have none.
    digest : str, optional
        SHA-256 over the files of its directory: equal digests give equal predictions.
    """

    name: str
    kind: ModelKind
    model: HamiltonianModel
    card: ModelCard | None = None
    digest: str | None = None

    @property
    def predictions_folder(self) -> Path | None:
        """Where the predictions lie, if there is no model but only those."""
        return self.model.folder if isinstance(self.model, PredictionsModel) else None

    @property
    def info(self) -> dict[str, str | float | None]:
        """What a result says about the model."""
        predicts = self.predictions_folder is None
        return {
            "name": self.name,
            "kind": self.kind,
            "version": self.card.version if self.card else None,
            "digest": self.digest,
            "cutoff_ang": self.model.cutoff_ang if predicts else None,
            "n_parameters": self.card.n_parameters if self.card else None,
        }

    def predict(self, device: Device) -> BlockMatrix:
        """Predict H of a device, handing out only what the model declares as input.

        Raises
        ------
        VcmbenchError
            If the model refuses the structure, or the result belongs to other sites.
        """
        if isinstance(self.model, PredictionsModel):
            return self.model.predict_device(device)
        matrix = self.model.predict(device.structure)
        try:
            device.pattern.require_same_sites(matrix.pattern)
        except VcmbenchError as error:
            raise VcmbenchError(f"{self.name}: prediction for {device.id}: {error}") from error
        return matrix


class PredictionsModel:
    """Predictions made elsewhere: a folder with one store per device.

    Parameters
    ----------
    folder : Path
        The predictions.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def cutoff_ang(self) -> float:
        """Range that the predictions should cover, Å; blocks they lack count as zero."""
        return SUPPORT_ANG

    def predict_device(self, device: Device) -> BlockMatrix:
        """Read the prediction for a device."""
        return read_predictions(self.folder, device)

    def predict(self, structure: Structure) -> BlockMatrix:
        """Refuse: stored predictions say nothing about other structures."""
        raise VcmbenchError(
            f"{self.folder}: predictions alone cannot be asked for another structure "
            f"({structure.n_sites} sites): expected a model"
        )


def require_known_species(name: str, structure: Structure, basis: OrbitalBasis) -> None:
    """Raise if `structure` has a species that a model with `basis` does not know."""
    if unknown := [s.label for s in structure.species_list if s not in basis.shells]:
        known = ", ".join(species.label for species in basis.species)
        raise VcmbenchError(
            f"{name}: structure: species: found {', '.join(unknown)}, "
            f"expected only {known} (a star marks a ghost)"
        )
