"""Make a submission of a model and of its evaluation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from vcmbench.documents import write_json
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.leaderboard.benchmark import Benchmark
from vcmbench.leaderboard.problems import refuse, schema_problems
from vcmbench.leaderboard.strict_yaml import read_strict_yaml
from vcmbench.leaderboard.submission import (
    PREDICTIONS,
    RESULT,
    SUBMISSION,
    BaselineHosting,
    DatasetVersion,
    HubHosting,
    PredictionFile,
    Predictions,
    Submission,
    UrlHosting,
    prediction_name,
)
from vcmbench.leaderboard.validate import Entry, check_predictions, read_entry
from vcmbench.models.card import read_card
from vcmbench.models.interface import CARD, ModelCard
from vcmbench.models.loader import directory_digest, known_baselines
from vcmbench.release import Release, find_release
from vcmbench.release.manifest import file_entry
from vcmbench.scores.result import Result, read_result
from vcmbench.store.content import atomic_file

BASELINE_CODE_LICENSE: Final = "BSD-3-Clause"
"""Licence of this package, which holds the code of the baselines."""

_HUB = re.compile(r"hub:(?P<repo>[^@\s]+)@(?P<revision>\S+)")


def pack(
    model: str,
    result_folder: Path,
    output: Path | None = None,
    *,
    about: Path | None = None,
    hosted: str | None = None,
    release: Release | None = None,
) -> Entry:
    """Write the folder of a submission.

    Parameters
    ----------
    model : str
        A baseline's name, a model directory or a predictions folder.
    result_folder : Path
        What `vcmbench evaluate` wrote: ``result.json`` and, of a model, its predictions.
    output : Path, optional
        Folder to write, ``leaderboard/submissions/<name>`` if not given.
    about : Path, optional
        YAML file with fields of ``submission.yml``: all that the model's card does not say.
    hosted : str, optional
        Where the predictions are: ``hub:OWNER/REPO@COMMIT`` or an address that ends with a slash.
        Baselines need none.
    release : Release, optional
        What was predicted, found by its name if not given.

    Returns
    -------
    Entry
        The submission as it was written.

    Raises
    ------
    VcmbenchError
        If the result belongs to other weights or is not of a whole test part, predictions are
        missing, or fields are missing or wrong: all of them are named.
    """
    result = read_result(result_folder / RESULT)
    folder = known_baselines().get(model, Path(model))
    card = read_card(folder) if (folder / CARD).is_file() else None
    if card is not None and (digest := directory_digest(folder)) != result.model.digest:
        raise bad_input(
            result_folder / RESULT,
            "model.digest",
            found=result.model.digest,
            expected=f"{digest}, that of {folder}: evaluate the model as it is now",
        )
    if card is None and not folder.is_dir():
        raise VcmbenchError(f"{model}: neither a baseline, a model directory nor predictions")
    submission = _submission(card, about, is_baseline=model in known_baselines())
    dataset = DatasetVersion(
        name=result.dataset.name, version=result.dataset.version, digest=result.dataset.digest
    )
    release = release or find_release(dataset.label)
    source = folder if card is None else result_folder / "predictions"
    predictions = _predictions(model, result, dataset, Benchmark.of(release), source, hosted)
    target = output or Path("leaderboard") / "submissions" / submission.name
    _write(target, submission, result, predictions)
    entry = read_entry(target, release)
    if problems := check_predictions(entry, source, release):
        raise refuse(problems)
    return entry


def _submission(card: ModelCard | None, about: Path | None, *, is_baseline: bool) -> Submission:
    fields: dict[str, Any] = {"schema_version": 1}
    if card is not None:
        fields |= _of_card(card)
    if is_baseline:
        fields["code_license"] = BASELINE_CODE_LICENSE
    if about is not None:
        given = read_strict_yaml(about)
        if not isinstance(given, dict):
            raise bad_input(about, "content", found=type(given).__name__, expected="fields")
        fields |= given
    try:
        return Submission.model_validate(fields)
    except ValidationError as error:
        problems = schema_problems(about.name if about else "--about", Submission, error)
        raise refuse(problems) from error


def _of_card(card: ModelCard) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": card.name.lower().replace("_", "-").replace(" ", "-"),
        "version": card.version,
        "description": " ".join(card.description.split()),
        "authors": card.authors,
        "weights_license": card.license,
        "cutoff_ang": card.cutoff_ang,
        "n_parameters": card.n_parameters,
        "references": card.references,
    }
    if card.cost is not None:
        fields["cost"] = card.cost.model_dump()
    if (training := card.training) is not None:
        seen = {"name": training.dataset, "version": training.version, "digest": training.digest}
        fields["training"] = {"datasets": [seen], "extra_data": []}
    return fields


def _predictions(
    model: str,
    result: Result,
    dataset: DatasetVersion,
    benchmark: Benchmark,
    folder: Path,
    hosted: str | None,
) -> Predictions:
    files: dict[str, PredictionFile] = {}
    hosting: HubHosting | UrlHosting | BaselineHosting
    if model in known_baselines() and hosted is None:
        assert result.model.digest is not None
        hosting = BaselineHosting(kind="baseline", baseline=model, model_digest=result.model.digest)
    else:
        hosting = _hosting(hosted)
        files = {name: _file(folder, name) for name in benchmark.devices}
    return Predictions(schema_version=1, dataset=dataset, hosting=hosting, files=files)


def _hosting(hosted: str | None) -> HubHosting | UrlHosting:
    expected = "hub:OWNER/REPO@COMMIT or https://…/"
    if hosted is None:
        raise bad_input("--hosted", "predictions", found="nothing", expected=expected)
    try:
        if match := _HUB.fullmatch(hosted):
            return HubHosting(kind="hub", repo=match["repo"], revision=match["revision"])
        return UrlHosting(kind="url", base=hosted)
    except ValidationError as error:
        raise bad_input("--hosted", "predictions", found=hosted, expected=expected) from error


def _file(folder: Path, device_id: str) -> PredictionFile:
    path = folder / prediction_name(device_id)
    if not path.is_file():
        raise bad_input(
            folder,
            path.name,
            found="no such file",
            expected="one (vcmbench predict makes those of a part)",
        )
    entry = file_entry(path)
    return PredictionFile(size=entry.size, sha256=entry.sha256)


def _write(folder: Path, submission: Submission, result: Result, predictions: Predictions) -> None:
    document = submission.model_dump(mode="json", exclude_none=True)
    for name, text in (
        (SUBMISSION, yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=99)),
        (RESULT, result.to_json()),
    ):
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(folder / PREDICTIONS, predictions)
