"""`vcmbench leaderboard validate|score|build`: check and score submissions, make the site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.options import Json

app = typer.Typer(help="Check and score submissions, build the site.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of a submission.")]
Release = Annotated[
    str | None, typer.Option(help="Release folder, if it cannot be found by its name.")
]
Predictions = Annotated[
    Path | None, typer.Option(help="Folder of the predictions, if they are at hand.")
]
Leaderboard = Annotated[
    Path, typer.Option(help="Folder with submissions/, records/ and hardware.yml.")
]


@app.command("validate")
def validate(
    path: Folder, predictions: Predictions = None, release: Release = None, json: Json = False
) -> None:
    """Check a submission and name every problem, with its field and the closest valid value.

    Nothing of the submission is executed, and its predictions are not downloaded: name their folder
    to have them checked too.

    Examples
    --------
    vcmbench leaderboard validate leaderboard/submissions/slater-koster
    """
    from vcmbench.cli.output import console, print_json
    from vcmbench.leaderboard.problems import refuse
    from vcmbench.leaderboard.validate import check_predictions, check_submission
    from vcmbench.release import find_release

    found = find_release(release) if release else None
    entry, problems = check_submission(path, found)
    if entry is not None and not problems and predictions is not None:
        found = found or find_release(entry.predictions.dataset.label)
        problems = check_predictions(entry, predictions, found)
    if json:
        print_json({"path": str(path), "problems": [problem._asdict() for problem in problems]})
    if problems:
        raise refuse(problems)
    if not json:
        console.print(f"{path}: in good order", soft_wrap=True)


@app.command("score")
def score(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders of submissions [those without a record].")
    ] = None,
    predictions: Predictions = None,
    private: Annotated[
        Path | None, typer.Option(help="Private half of the release: scores the hidden test.")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(help="Machine of hardware.yml, with --throughput.")
    ] = None,
    throughput: Annotated[
        Path | None,
        typer.Option(help="throughput.json that was measured on that machine."),
    ] = None,
    release: Release = None,
    leaderboard: Leaderboard = Path("leaderboard"),
    work: Annotated[
        Path, typer.Option(help="Folder of downloads and intermediate results.")
    ] = Path("results/leaderboard"),
    json: Json = False,
) -> None:
    """Recompute the accuracy from the predictions, compare it with the claims, write the record.

    Running the same command again continues where it stopped. Without a path, all submissions are
    scored that have no record of their present state and of the present score specification.

    Examples
    --------
    vcmbench leaderboard score leaderboard/submissions/slater-koster

    vcmbench leaderboard score --private hidden-labels
    """
    from vcmbench.cli.output import console, messages, print_json, stage_progress
    from vcmbench.leaderboard.score import Scoring, outdated, score
    from vcmbench.release import find_release

    records = []
    try:
        for path in paths or outdated(leaderboard):
            name = path.resolve().name
            scoring = Scoring(
                leaderboard=leaderboard,
                work=work / name,
                release=find_release(release) if release else None,
                predictions=predictions,
                private=private,
                hardware=hardware,
                throughput=throughput,
            )
            with stage_progress() as progress:
                record = score(path, scoring, progress)
            records.append(record.model_dump(mode="json"))
            if not json:
                console.print(f"{name}: {record.summary}", soft_wrap=True)
    except KeyboardInterrupt:
        messages.print("interrupted: run the same command again to continue")
        raise
    if json:
        print_json(records)


@app.command("build")
def build(
    leaderboard: Leaderboard = Path("leaderboard"),
    output: Annotated[Path, typer.Option(help="Folder of the site.")] = Path("site"),
) -> None:
    """Make the static site of all records: open index.html, or put the folder on any host.

    Needs Jinja2 and markdown-it-py: pip install 'vcmbench[leaderboard]'.

    Examples
    --------
    vcmbench leaderboard build --output site
    """
    from vcmbench.cli.output import console, messages
    from vcmbench.errors import VcmbenchError

    try:
        from vcmbench.leaderboard.site import build_site
    except ModuleNotFoundError as error:
        raise VcmbenchError(
            f"the site needs {error.name}: pip install 'vcmbench[leaderboard]'"
        ) from None

    site = build_site(leaderboard, output)
    for remark in site.remarks:
        messages.print(remark, soft_wrap=True)
    console.print(f"site: {site.index}", soft_wrap=True)
