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
        absolute = torch.zeros((), dtype=torch.float64)
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
        return torch.stack([absolute, torch.tensor(n_entries, dtype=torch.float64)])

    def _accumulate(self, batch: Batch, n_entries: int) -> Tensor:
        """Add a batch's part of the gradient, step by step; return its summed |ΔH|, meV.

        The gradient of the features is summed over the steps before it goes on to the sites:
        nothing of a step outlives it.
        """
        features = _features(self.network, batch)
        leaf = features.detach().requires_grad_()
        loss, error = (torch.zeros((), device=leaf.device, dtype=torch.float64) for _ in range(2))
        for differences, weight in _differences(self.network, leaf, batch):
            huber = weight * sum(self._huber(difference) for difference in differences)
            (huber / n_entries).backward()
            loss += huber.detach()
            for difference in differences:
                error += weight * difference.detach().abs().sum()
        if not torch.isfinite(loss):
            raise VcmbenchError(
                f"training: step {self.step}: {batch.piece.name}: found loss {loss.item()}, "
                "expected a number: lower the learning rate"
            )
        features.backward(leaf.grad)
        return error.cpu()

    def _huber(self, difference: Tensor) -> Tensor:
        """Sum over entries, in units of meV far from zero."""
        delta = self.settings.huber_mev
        nothing = torch.zeros_like(difference)
        huber_loss = torch.nn.functional.huber_loss
        return huber_loss(difference, nothing, reduction="sum", delta=delta) / delta

    def _follow(self) -> None:
        """Move the average; it follows faster at first."""
        past = min(self.settings.averaging, self.step / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.network.parameters()), 1 - past
            )

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
                for differences, weight in _differences(self.average, features, batch):
                    for difference in differences:
                        total[0] += weight * difference.abs().sum().double().cpu()
                        total[1] += weight * difference.numel()
        self.team.sum([total])
        return float(total[0] / total[1])


def _features(network: BlockNetwork, batch: Batch) -> Tensor:
    """Features of the sites of a batch."""
    accelerator = next(network.parameters()).device
    return network.features(batch.piece.graph, chunk=CHUNK[accelerator.type])


def _differences(
    network: BlockNetwork, features: Tensor, batch: Batch
) -> Iterator[tuple[list[Tensor], int]]:
    """Predicted minus target of each step of a batch, meV, and the directions it stands for."""
    piece = batch.piece
    for step in predicted_blocks(
        network, features, piece.table, batch.blocks, dtype=features.dtype
    ):
        differences = [
            MEV_PER_EV * (part.values - part.among(piece.target)[part.rows].to(part.values))
            for part in step.pieces
        ]
        yield differences, int(piece.pattern.weight[step.blocks[0]])
