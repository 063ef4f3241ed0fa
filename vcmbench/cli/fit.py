"""`vcmbench fit`: fit a closed-form baseline and write its model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.options import Dataset


def fit(
    baseline: Annotated[str, typer.Argument(help="What to fit: slater-koster or species-mean.")],
    output: Annotated[Path, typer.Option(help="Model directory to write.")],
    dataset: Dataset = "vcm-demo",
    split: Annotated[
        str, typer.Option(help="Part of the device split, or SPLIT:PART, to fit on.")
    ] = "train",
    devices: Annotated[
        str | None, typer.Option(help="Device ids, comma-separated, instead of a split.")
    ] = None,
) -> None:
    """Fit a closed-form baseline to DFT Hamiltonians.

    Examples
    --------
    vcmbench fit slater-koster --devices device-a --output my_model

    vcmbench evaluate my_model
    """
    from vcmbench.cli.output import print_table, spinner
    from vcmbench.fit import fit as fit_baseline
    from vcmbench.release import find_release

    release = find_release(dataset)
    device_ids = tuple(devices.split(",")) if devices else release.device_ids(split)
    with spinner(f"fitting {baseline}"):
        card = fit_baseline(baseline, release, device_ids, output)
    training = card.training
    assert training is not None
    print_table(
        str(output),
        [
            {
                "baseline": card.name,
                "fitted to": ", ".join(training.devices),
                "parameters": card.n_parameters,
                "MAE (meV)": training.mae_mev,
                "MAE 12 Å (meV)": training.mae_full_mev,
            }
        ],
    )
