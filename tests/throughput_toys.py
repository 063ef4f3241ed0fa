"""Models that run out of memory, die, hang, cheat: what the throughput protocol has to see."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import numpy as np

from vcmbench.blocks import BlockMatrix
from vcmbench.models import load_model
from vcmbench.structure import Structure

LARGE = 200
"""Sites beyond which the toys misbehave."""


class Honest:
    """A closed-form baseline."""

    cutoff_ang = 12.0

    def __init__(self) -> None:
        self.model = load_model("species-mean").model

    def predict(self, structure: Structure) -> BlockMatrix:
        return self.model.predict(structure)

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        return self.model.predict_within(structure, cutoff_ang)

    def stage_seconds(self) -> dict[str, float]:
        return {"forward": 0.001}

    def execution(self) -> dict[str, object]:
        return {"back end": "numpy", "compiled": False}


class OnLarge(Honest):
    """Does something with large structures only."""

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        if structure.n_sites > LARGE:
            self.fail()
        return super().predict_within(structure, cutoff_ang)

    def fail(self) -> None:
        raise ValueError("no such thing")


class Greedy(OnLarge):
    def fail(self) -> None:
        np.ones(2**45)


class GreedyInside(OnLarge):
    """Loses the memory error on the way."""

    def fail(self) -> None:
        try:
            np.ones(2**45)
        except MemoryError as error:
            raise RuntimeError("prediction failed") from error


class GreedyTorch(OnLarge):
    def fail(self) -> None:
        import torch

        torch.ones(2**45)


class Dying(OnLarge):
    def fail(self) -> None:
        ctypes.string_at(0)


class Killed(OnLarge):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Hanging(OnLarge):
    def fail(self) -> None:
        time.sleep(3600)


class Remembering(Honest):
    """Keeps what it predicted for the same positions."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[object, BlockMatrix] = {}
        self.hits = 0

    def key(self, structure: Structure) -> object:
        return structure.positions.tobytes()

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        key = self.key(structure), cutoff_ang
        self.hits += key in self.known
        if key not in self.known:
            self.known[key] = super().predict_within(structure, cutoff_ang)
        return self.known[key]


class Stale(Remembering):
    """Keeps what it predicted for the same species: as fast as can be, and wrong."""

    def key(self, structure: Structure) -> object:
        return structure.numbers.tobytes()


class Rough(Honest):
    """Another answer where it is timed than where it is scored."""

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        matrix = super().predict_within(structure, cutoff_ang)
        return matrix.with_values(np.round(matrix.values, 1))


class Lazy(Honest):
    """Nothing for the second half of a large structure."""

    def predict_within(self, structure: Structure, cutoff_ang: float) -> BlockMatrix:
        matrix = super().predict_within(structure, cutoff_ang)
        if structure.n_sites <= LARGE:
            return matrix
        values = matrix.values.copy()
        values[len(values) // 2 :] = 0.0
        return matrix.with_values(values)
