"""``train.yml``: what is trained, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from vcmbench.documents import Document, first_problem, read_yaml
from vcmbench.errors import VcmbenchError
from vcmbench.models.neural.networks import So2LocalNetwork

CONFIG: Final = "train.yml"


class Optimiser(Document):
    """AdamW with a warm-up and a cosine down to zero, and an exponential moving average."""

    epochs: PositiveInt = 200
    """Each supervises every block once."""
    learning_rate: PositiveFloat = 3e-3
    """At its highest."""
    warm_up_epochs: NonNegativeFloat = 2.0
    """Epochs in which the rate rises from zero."""
    weight_decay: NonNegativeFloat = 1e-4
    gradient_limit: PositiveFloat = 1.0
    """Largest norm of the gradient: longer ones are shortened."""
    blocks_per_step: PositiveInt = 8192
    """Blocks of one slab that a batch supervises; the rest of the slab's follow in others."""
    batches_per_step: PositiveInt = 1
    """Batches between two updates, shared by the processes."""
    averaging: float = Field(default=0.998, ge=0, lt=1)
    """Weight of the past in the moving average, per step."""
    huber_mev: PositiveFloat = 1.0
    """The loss is |ΔH| beyond this, and smooth below, meV."""
    validate_every: PositiveInt = 5
    """Epochs between two validations."""
    patience: PositiveInt = 20
    """Validations without a better one after which training ends."""


class TrainingConfig(Document):
    """A training run."""

    description: str
    """For the model's card."""
    network: So2LocalNetwork
    optimiser: Optimiser = Optimiser()
    seed: int = 0
    slab_ang: PositiveFloat | None = None
    """Width of the slabs that the work is cut into, Å; devices whole if None."""
    labels: Literal["all", "published"] = "all"
    """``published``: only blocks with both sites in one slab, as arXiv:2602.02125's code does."""
    references: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> TrainingConfig:
        """Read the ``train.yml`` of a folder.

        Raises
        ------
        VcmbenchError
            If it cannot be read or a field is wrong.
        """
        path = folder / CONFIG
        try:
            return cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise VcmbenchError(f"{path}: {first_problem(error)}") from error
