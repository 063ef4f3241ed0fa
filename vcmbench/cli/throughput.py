"""`vcmbench throughput`: latency, offline throughput and a ladder of sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.evaluate import Accelerator
from vcmbench.cli.options import Dataset


def throughput(
    model: Annotated[
        str, typer.Argument(help="A baseline's name, a model directory, or module:callable.")
    ],
    dataset: Dataset = "vcm-demo",
    split: Annotated[
        str, typer.Option(help="Part of the device split, or SPLIT:PART: the test set.")
    ] = "test",
    accelerator: Annotated[
        Accelerator, typer.Option(help="What computes the prediction.")
    ] = Accelerator.CPU,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPUs that each process is bound to [all].")
    ] = None,
    sizes: Annotated[
        str, typer.Option(help="Sites of the ladder, about, comma-separated.")
    ] = "300,1000,2500,5000,10000,25000,50000",
    max_seconds: Annotated[
        float,
        typer.Option(
            "--max-seconds-per-size",
            min=0.1,
            help="Time for warm-up and predictions of one size; more gives more repetitions.",
        ),
    ] = 15.0,
    seed: Annotated[int, typer.Option(help="Chooses the displacements.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the report [results/throughput-MODEL-DATASET-ACCELERATOR]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print throughput.json.")] = False,
) -> None:
    """Measure how fast a model predicts complete Hamiltonians, and up to which size.

    Each size is measured in a process of its own. Running the same command again goes on from the
    finished ones.

    Examples
    --------
    vcmbench throughput slater-koster --threads 1 --sizes 300,1000

    vcmbench throughput my_model --dataset vcm-nano --accelerator cuda
    """
    from vcmbench.cli.output import console, messages, spinner
    from vcmbench.throughput.run import Request, parse_sizes, run
    from vcmbench.throughput.tables import print_throughput

    request = Request(
        model=model,
        dataset=dataset,
        selection=split,
        accelerator=accelerator.value,
        threads=threads,
        sizes=parse_sizes(sizes),
        seed=seed,
        max_seconds=max_seconds,
        output=output,
    )
    try:
        with spinner("measuring") as update:
            report, folder = run(request, update)
    except KeyboardInterrupt:
        messages.print("interrupted: run the same command again to continue")
        raise
    if json:
        console.print(report.to_json(), markup=False, highlight=False, soft_wrap=True, end="")
    else:
        print_throughput(report, console)
    messages.print(f"report and plot: {folder}")
