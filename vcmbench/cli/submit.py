"""`vcmbench submit pack`: make a submission to the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Submit a model to the leaderboard.", no_args_is_help=True)


@app.callback()
def _submit() -> None:
    """Keep `pack` a command of its own."""


@app.command("pack")
def pack(
    model: Annotated[
        str, typer.Argument(help="A model directory, a predictions folder, or a baseline's name.")
    ],
    result: Annotated[
        Path, typer.Option(help="Folder that vcmbench evaluate wrote.", show_default=False)
    ],
    further: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of vcmbench evaluate --split PART, out of distribution; may be repeated."
        ),
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="YAML file with what the model's card does not say (docs/submit.md)."),
    ] = None,
    hosted: Annotated[
        str | None,
        typer.Option(help="Where the predictions are: hub:OWNER/REPO@COMMIT or https://…/"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write [leaderboard/submissions/NAME].")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="Release folder, if it cannot be found by its name.")
    ] = None,
) -> None:
    """Make the folder for a pull request: submission.yml, results, predictions.json.

    Examples
    --------
    vcmbench evaluate my_model --dataset vcm-nano --output results/my-model

    vcmbench submit pack my_model --result results/my-model --about about.yml
    --hosted hub:me/my-predictions@COMMIT

    vcmbench submit pack my_model --result results/my-model --further results/my-model-ood-long
    --about about.yml --hosted https://example.org/predictions/
    """
    from vcmbench.cli.output import console
    from vcmbench.leaderboard.pack import pack
    from vcmbench.release import find_release

    entry = pack(
        model,
        result,
        output,
        further=further or (),
        about=about,
        hosted=hosted,
        release=find_release(release) if release else None,
    )
    console.print(f"{entry.submission.name}: {entry.folder}", soft_wrap=True)
