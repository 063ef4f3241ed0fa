"""State of a run between two epochs: what a killed run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from vcmbench.documents import Document
from vcmbench.errors import bad_input
from vcmbench.models.neural.checkpoint import read_tensors, take, write_tensors
from vcmbench.training.config import TrainingConfig
from vcmbench.training.loop import Trainer

STATE: Final = "state.safetensors"

_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


class Row(Document):
    """One line of the log."""

    epoch: int
    """Epochs that are done."""
    steps: int
    learning_rate: float
    train_mev: float
    """Mean |ΔH| of the epoch's batches, before each step."""
    validation_mev: float | None = None
    """Mean |ΔH| of the averaged weights."""
    seconds: float
    """Of the run so far."""


class State(Document):
    """What is not a tensor."""

    config: TrainingConfig
    data: dict[str, str]
    """Content digest of each device of the run."""
    rows: tuple[Row, ...] = ()

    @property
    def epochs(self) -> int:
        """Epochs that are done."""
        return self.rows[-1].epoch if self.rows else 0

    @property
    def steps(self) -> int:
        """Steps that are done."""
        return self.rows[-1].steps if self.rows else 0

    @property
    def best(self) -> Row | None:
        """Row of the lowest validation error, the first of several."""
        validated = [
            (row.validation_mev, row) for row in self.rows if row.validation_mev is not None
        ]
        return min(validated, key=lambda pair: pair[0])[1] if validated else None


def write_state(folder: Path, state: State, trainer: Trainer) -> None:
    """Write all that a run needs to go on."""
    tensors = {f"network/{k}": v for k, v in trainer.network.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in trainer.average.state_dict().items()}
    for name, parameter in trainer.network.named_parameters():
        for moment in _MOMENTS:
            if parameter in trainer.optimiser.state:
                tensors[f"{moment}/{name}"] = trainer.optimiser.state[parameter][moment]
    write_tensors(folder / STATE, tensors, state)


def resume(folder: Path, begun: State, trainer: Trainer) -> State:
    """Take up a run of the same configuration and data, or begin one.

    Raises
    ------
    VcmbenchError
        If the folder holds the state of another run.
    """
    path = folder / STATE
    if not path.exists():
        return begun
    tensors, state = read_tensors(path, State)
    for name in ("config", "data"):
        if (found := getattr(state, name)) != (expected := getattr(begun, name)):
            raise bad_input(
                path, name, found=found, expected=f"{expected}; remove the file to start afresh"
            )
    for prefix, module in (("network/", trainer.network), ("average/", trainer.average)):
        module.load_state_dict(take(path, tensors, module.state_dict(), prefix))
    parameters = dict(trainer.network.named_parameters())
    moments = {m: take(path, tensors, parameters, f"{m}/") for m in _MOMENTS}
    for name, parameter in parameters.items():
        trainer.optimiser.state[parameter] = {
            "step": torch.tensor(float(state.steps)),
            **{m: moments[m][name].to(parameter.device) for m in _MOMENTS},
        }
    trainer.step = state.steps
    return state
