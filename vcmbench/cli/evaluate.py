"""`vcmbench evaluate` and `vcmbench schema`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.options import Dataset, Json


class Accelerator(StrEnum):
    """What computes the model's prediction."""

    CPU = "cpu"
    CUDA = "cuda"


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A baseline's name, a model directory, module:callable, or a predictions folder."
        ),
    ],
    dataset: Dataset = "vcm-demo",
    split: Annotated[
        str, typer.Option(help="Part of the device split, or SPLIT:PART, to score on.")
    ] = "test",
    devices: Annotated[
        str | None, typer.Option(help="Device ids, comma-separated, instead of a split.")
    ] = None,
    accelerator: Annotated[
        Accelerator, typer.Option(help="What computes the prediction.")
    ] = Accelerator.CPU,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the result [results/MODEL-DATASET].")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Transmission at every fourth energy; marked as such.")
    ] = False,
    json: Json = False,
) -> None:
    """Score a model: Hamiltonian, spectrum, transmission, physicality, throughput.

    Running the same command again continues where it stopped.

    Examples
    --------
    vcmbench evaluate slater-koster

    vcmbench evaluate my_model/ --split validation --output results/mine

    vcmbench evaluate predictions/ --devices device-b --quick
    """
    from vcmbench.cli.output import console, messages, resumable, stage_progress
    from vcmbench.evaluate import Request, run
    from vcmbench.report import print_result

    request = Request(
        model=model,
        dataset=dataset,
        selection=split,
        devices=tuple(devices.split(",")) if devices else None,
        accelerator=accelerator.value,
        quick=quick,
        output=output,
    )
    with resumable(), stage_progress() as progress:
        evaluation = run(request, progress)
    if json:
        console.print(evaluation.result.to_json(), markup=False, highlight=False, soft_wrap=True)
    else:
        print_result(evaluation.result, console)
    messages.print(f"result, plots and predictions: {evaluation.folder}", soft_wrap=True)


def schema() -> None:
    """Print the JSON Schema of result.json.

    Examples
    --------
    vcmbench schema > result.schema.json
    """
    from vcmbench.scores.result import schema_text

    typer.echo(schema_text(), nl=False)
