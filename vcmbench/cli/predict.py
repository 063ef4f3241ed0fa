"""`vcmbench predict`: predict H of whole devices into a predictions folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.evaluate import Accelerator
from vcmbench.cli.options import Dataset, Json


def predict(
    model: Annotated[
        str, typer.Argument(help="A baseline's name, a model directory, or module:callable.")
    ],
    structure: Annotated[
        list[Path] | None,
        typer.Argument(help="Extended XYZ files, instead of the devices of a dataset."),
    ] = None,
    dataset: Dataset = "vcm-demo",
    split: Annotated[str, typer.Option(help="Part of the device split, or SPLIT:PART.")] = "test",
    devices: Annotated[
        str | None, typer.Option(help="Device ids, comma-separated, instead of a split.")
    ] = None,
    slab_ang: Annotated[
        float | None,
        typer.Option(min=1.0, help="Work on slabs along x no wider than this, Å [in one piece]."),
    ] = None,
    accelerator: Annotated[
        Accelerator, typer.Option(help="What computes the prediction.")
    ] = Accelerator.CPU,
    output: Annotated[Path, typer.Option(help="Predictions folder.")] = Path("predictions"),
    json: Json = False,
) -> None:
    """Predict H of whole devices, as large as they may be.

    Slabs bound the memory of a prediction and are shared by the processes of torchrun. Running
    the same command again goes on from the finished slabs.

    Examples
    --------
    vcmbench predict slater-koster --dataset vcm-demo --output predictions

    vcmbench predict my_model large.extxyz --slab-ang 15

    torchrun --nproc-per-node 2 --no-python vcmbench predict my_model large.extxyz --slab-ang 15
    """
    from vcmbench.build.extxyz import read_extxyz
    from vcmbench.cli.output import messages, print_json, resumable, stage_progress
    from vcmbench.models.loader import load_model
    from vcmbench.predict import Target
    from vcmbench.predict import predict as predict_targets
    from vcmbench.processes import team
    from vcmbench.release import find_release

    if structure:
        targets = [Target(path.stem, read_extxyz(path)) for path in structure]
    else:
        release = find_release(dataset)
        ids = devices.split(",") if devices else release.device_ids(split)
        entries = [release.device(name) for name in ids]
        targets = [Target(entry.id, entry.structure, entry.gauge) for entry in entries]
    with (
        resumable(),
        team(accelerator.value) as processes,
        stage_progress(visible=processes.leads) as told,
    ):
        loaded = load_model(model, accelerator=accelerator.value)
        paths = predict_targets(
            loaded,
            targets,
            output,
            slab_ang=slab_ang,
            accelerator=accelerator.value,
            team=processes,
            progress=told,
        )
        if processes.leads and json:
            print_json([{"id": path.name.partition(".")[0], "store": str(path)} for path in paths])
        elif processes.leads:
            for path in paths:
                messages.print(f"prediction: {path}", soft_wrap=True)
