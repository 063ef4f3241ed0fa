"""The training loop: batches, loss, gradients summed over processes, average, validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcmbench.errors import VcmbenchError
from vcmbench.models.neural.assembly import CHUNK, predicted_blocks
from vcmbench.models.neural.network import BlockNetwork
from vcmbench.processes import Team
from vcmbench.training.config import Optimiser
from vcmbench.training.supervision import (
    Batch,
    Supervised,
    epoch_batches,
    target_of,
    whole_batches,
)
from vcmbench.units import MEV_PER_EV


@dataclass
class Trainer:
    """A network in training.

    Parameters
    ----------
    network : BlockNetwork
        What is trained.
    average : BlockNetwork
        Moving average of its weights: what is validated and kept.
    settings : Optimiser
        How.
    seed : int
        Fixes the batches.
    team : Team
        The processes.
    """

    network: BlockNetwork
    average: BlockNetwork
    settings: Optimiser
    seed: int
    team: Team

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), weight_decay=self.settings.weight_decay
        )
        self.step = 0

    def train_epoch(self, pieces: Sequence[Supervised], epoch: int) -> float:
        """Supervise every block once.

        Returns
        -------
        float
            Mean |ΔH| over the epoch, meV.

        Raises
        ------
        VcmbenchError
            If a loss is not finite; it names the batch.
        """
        batches = epoch_batches(pieces, self.settings.blocks_per_step, (self.seed, epoch))
        width = self.settings.batches_per_step
        total = torch.zeros(2, dtype=torch.float64)
        n_steps = -(-len(batches) // width)
        for index in range(n_steps):
            rate = self._rate(epoch + index / n_steps)
            total += self._update(batches[index * width : (index + 1) * width], rate)
        return float(total[0] / total[1])

    def _update(self, batches: Sequence[Batch], rate: float) -> Tensor:
        """One step; returns the summed |ΔH| (meV) and the number of entries."""
        self.optimiser.zero_grad(set_to_none=False)
        n_entries = sum(batch.n_directed for batch in batches)
        absolute = torch.zeros(1, dtype=torch.float64)
        for batch in batches[self.team.rank :: self.team.size]:
            absolute += self._accumulate(batch, n_entries)
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        self.team.sum([*(p.grad for p in parameters if p.grad is not None), absolute])
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_limit)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.step += 1
        self._follow()
        return torch.cat([absolute, torch.tensor([n_entries], dtype=torch.float64)])

    def _accumulate(self, batch: Batch, n_entries: int) -> Tensor:
        """Add a batch's part of the gradient, piece by piece; return its summed |ΔH|, meV.

        The gradient of the features is summed over the pieces before it goes on to the sites:
        nothing of a piece outlives it.
        """
        error = torch.zeros(1, dtype=torch.float64)
        features = _features(self.network, batch)
        leaf = features.detach().requires_grad_()
        for difference, weight in _differences(self.network, leaf, batch):
            huber = torch.nn.functional.huber_loss(
                difference,
                torch.zeros_like(difference),
                reduction="sum",
                delta=self.settings.huber_mev,
            )
            if not torch.isfinite(huber):
                raise VcmbenchError(
                    f"training: step {self.step}: {batch.piece.name}: found loss {huber.item()}, "
                    "expected a number: lower the learning rate"
                )
            (huber * (weight / (n_entries * self.settings.huber_mev))).backward()
            error += weight * difference.detach().abs().sum().double().cpu()
        features.backward(leaf.grad)
        return error

    def _follow(self) -> None:
        """Move the average; it follows faster at first."""
        past = min(self.settings.averaging, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - past)

    def _rate(self, epoch: float) -> float:
        settings = self.settings
        warm_up = min(1.0, (epoch + 1e-3) / max(settings.warm_up_epochs, 1e-9))
        return (
            settings.learning_rate
            * warm_up
            * 0.5
            * (1 + math.cos(math.pi * epoch / settings.epochs))
        )

    def validate(self, pieces: Sequence[Supervised]) -> float:
        """Mean |ΔH| of the average, both directions counted, meV."""
        total = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in list(whole_batches(pieces))[self.team.rank :: self.team.size]:
                features = _features(self.average, batch)
                for difference, weight in _differences(self.average, features, batch):
                    total[0] += weight * difference.abs().sum().double().cpu()
                    total[1] += weight * difference.numel()
        self.team.sum([total])
        return float(total[0] / total[1])


def _features(network: BlockNetwork, batch: Batch) -> Tensor:
    """Features of the sites of a batch."""
    accelerator = next(network.parameters()).device
    return network.features(batch.piece.graph.to(accelerator), chunk=CHUNK)


def _differences(
    network: BlockNetwork, features: Tensor, batch: Batch
) -> Iterator[tuple[Tensor, int]]:
    """Predicted minus target of each piece of a batch, meV, and the directions it stands for."""
    piece = batch.piece
    for part in predicted_blocks(
        network, features, piece.pattern, batch.blocks, dtype=features.dtype
    ):
        target = target_of(piece, part.blocks, part.values)
        weight = int(piece.pattern.weight[part.blocks[0]])
        yield MEV_PER_EV * (part.values - target), weight
