"""One process or several, as torchrun starts them: sums over processes, and who writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Team:
    """The processes of a run.

    Parameters
    ----------
    rank : int
        Number of this process.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size > 1:
            import torch

            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()


ALONE: Final = Team()
"""A run of one process."""


@contextmanager
def team(accelerator: str) -> Iterator[Team]:
    """Join the processes that torchrun started; without it this one is alone."""
    if "RANK" not in os.environ:
        yield ALONE
        return
    import torch

    if accelerator == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if accelerator == "cuda" else "gloo")
    try:
        yield Team(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
