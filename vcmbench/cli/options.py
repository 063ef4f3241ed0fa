"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Dataset = Annotated[
    str, typer.Option(help="A dataset's name (vcm-demo, vcm-demo@1.0.0) or release folder.")
]
Model = Annotated[
    str | None,
    typer.Option(help="Predict H: a baseline, model directory, module:callable or predictions."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
