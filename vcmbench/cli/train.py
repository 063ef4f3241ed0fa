"""`vcmbench train`: train a network and write its model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.evaluate import Accelerator
from vcmbench.cli.options import Json


def train(
    config: Annotated[Path, typer.Argument(help="Folder with a train.yml, such as a baseline's.")],
    dataset: Annotated[
        str, typer.Option(help="A dataset's name (vcm-nano, vcm-nano@1.0.0) or release folder.")
    ] = "vcm-nano",
    split: Annotated[
        str, typer.Option(help="Device or partition split: its parts train and validation.")
    ] = "device",
    accelerator: Annotated[Accelerator, typer.Option(help="What computes.")] = Accelerator.CPU,
    output: Annotated[
        Path | None, typer.Option(help="Model directory to write [the folder of the train.yml].")
    ] = None,
    json: Json = False,
) -> None:
    """Train a network as a residual to Slater–Koster.

    Running the same command again goes on after the last finished epoch. Under torchrun the
    processes share the batches.

    Examples
    --------
    vcmbench train baselines/so2-local --output my_model

    torchrun --nproc-per-node 4 --no-python vcmbench train baselines/so2-local --accelerator cuda
    """
    from vcmbench.cli.output import print_rows, resumable, training_progress
    from vcmbench.processes import team
    from vcmbench.release import find_release
    from vcmbench.training.config import TrainingConfig
    from vcmbench.training.run import train as train_network

    settings, release = TrainingConfig.read(config), find_release(dataset)
    directory, name = output or config, config.resolve().name
    with (
        resumable(),
        team(accelerator.value) as processes,
        training_progress(name, settings.optimiser.epochs, visible=processes.leads) as told,
    ):
        card = train_network(
            settings,
            name,
            release,
            split,
            directory,
            accelerator=accelerator.value,
            team=processes,
            progress=lambda row: told(row.epoch, row.train_mev, row.validation_mev),
        )
    assert card.training is not None
    if processes.leads:
        row = {
            "model": card.name,
            "trained on": list(card.training.devices),
            "parameters": card.n_parameters,
            "MAE (meV)": card.training.mae_mev,
            "MAE 12 Å (meV)": card.training.mae_full_mev,
        }
        print_rows(str(directory), [row], as_json=json)
