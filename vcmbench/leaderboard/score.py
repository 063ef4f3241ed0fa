"""Trusted scoring: predictions in, verified record out; nothing of a submission is executed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.evaluate import Evaluation, Request, run
from vcmbench.leaderboard.benchmark import TEST_PART, Benchmark
from vcmbench.leaderboard.claims import differences
from vcmbench.leaderboard.copies import TOLERATED, copied_fraction
from vcmbench.leaderboard.gather import fetch_predictions
from vcmbench.leaderboard.problems import refuse
from vcmbench.leaderboard.record import (
    Curves,
    HiddenScores,
    Record,
    accepted_digest,
    read_record,
    record_path,
    write_record,
)
from vcmbench.leaderboard.submission import (
    BaselineHosting,
    submission_digest,
    submission_folders,
)
from vcmbench.leaderboard.throughput import VerifiedThroughput, verified_throughput
from vcmbench.leaderboard.validate import Entry, check_predictions, read_entry
from vcmbench.models import load_model
from vcmbench.predict import Target, predict
from vcmbench.release import Release, find_release
from vcmbench.release.hidden import join_release
from vcmbench.scores.hamiltonian import align
from vcmbench.scores.result import Result
from vcmbench.store.predictions import read_predictions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scoring:
    """How to score; the fields are the options of ``vcmbench leaderboard score``.

    Attributes
    ----------
    leaderboard : Path
        Folder with ``records`` and ``hardware.yml``.
    work : Path
        Folder of downloads and intermediate results; a scoring that was interrupted goes on there.
    release : Release, optional
        What was predicted, found by its name if not given.
    predictions : Path, optional
        Folder of the predictions, fetched from where they are hosted if not given.
    private : Path, optional
        Private half of the release, for the hidden test.
    hardware : str, optional
        Machine of the maintainers that `throughput` was measured on.
    throughput : Path, optional
        ``throughput.json`` that the maintainers measured on that machine.
    """

    leaderboard: Path
    work: Path
    release: Release | None = None
    predictions: Path | None = None
    private: Path | None = None
    hardware: str | None = None
    throughput: Path | None = None


def score(
    folder: Path, scoring: Scoring, progress: Progress = lambda _stage, _done, _total: None
) -> Record:
    """Score a submission and write its record.

    Parameters
    ----------
    folder : Path
        The submission.
    scoring : Scoring
        How.
    progress : callable
        Called with the name of a stage, finished and all of its steps.

    Returns
    -------
    Record

    Raises
    ------
    VcmbenchError
        If the submission or a prediction is not in order, predictions are copies of the
        reference, or claims do not reproduce; no record is written then.
    """
    path = record_path(scoring.leaderboard, folder.resolve().name)
    entry = read_entry(folder, scoring.release, accepted=accepted_digest(path))
    release = scoring.release or find_release(entry.predictions.dataset.label)
    benchmark = Benchmark.of(release)
    throughput = _throughput(entry, scoring)
    hosting = entry.predictions.hosting
    if isinstance(hosting, BaselineHosting):
        model, predictions = _baseline(hosting), scoring.work / "predictions"
        evaluation = _evaluate(model, release, benchmark.public, scoring.work, progress)
        copied = _require_original(entry, release, predictions, benchmark.public)
    else:
        predictions = _predictions(entry, scoring, release, progress)
        model = str(predictions)
        copied = _require_original(entry, release, predictions, benchmark.public)
        evaluation = _evaluate(model, release, benchmark.public, scoring.work, progress)
    _require_claims(entry, evaluation)
    hidden = None
    if benchmark.hidden and scoring.private is not None:
        if isinstance(hosting, BaselineHosting):
            _predict(model, release, benchmark.hidden, predictions, progress)
        with TemporaryDirectory(prefix="vcmbench-joined-") as joined:
            whole = join_release(release, scoring.private, Path(joined) / "release")
            copied = max(copied, _require_original(entry, whole, predictions, benchmark.hidden))
            work = scoring.work / "hidden"
            found = _evaluate(str(predictions), whole, benchmark.hidden, work, progress)
            hidden = HiddenScores.of(found.result)
    record = Record(
        name=entry.submission.name,
        submission_digest=entry.digest,
        scored=datetime.datetime.now(datetime.UTC).date(),
        result=_named(entry, evaluation.result),
        hidden=hidden,
        copied_fraction=copied,
        transmission={name: Curves.of(curves) for name, curves in evaluation.curves.items()},
        throughput=throughput,
    )
    write_record(path, record)
    return record


def outdated(leaderboard: Path) -> list[Path]:
    """Submissions that lack a record of their present state and score specification."""
    return [folder for folder in submission_folders(leaderboard) if not _is_scored(folder)]


def _is_scored(folder: Path) -> bool:
    path = record_path(folder.parents[1], folder.name)
    try:
        return read_record(path).submission_digest == submission_digest(folder)
    except (VcmbenchError, OSError):  # No record, one of another specification, a file missing.
        return False


def _named(entry: Entry, result: Result) -> Result:
    """Call the model as the submission does, not after the folder of its predictions."""
    model = result.model.model_copy(
        update={"name": entry.submission.name, "version": entry.submission.version}
    )
    return result.model_copy(update={"model": model})


def _baseline(hosting: BaselineHosting) -> str:
    found = load_model(hosting.baseline).digest
    if found != hosting.model_digest:
        raise bad_input(
            f"baseline {hosting.baseline}", "digest", found=found, expected=hosting.model_digest
        )
    return hosting.baseline


def _predictions(entry: Entry, scoring: Scoring, release: Release, progress: Progress) -> Path:
    """Have the predictions at hand, and know that they may be read."""
    source = scoring.predictions
    if source is None:
        source = scoring.work / "download"
        fetch_predictions(entry, source, progress)
    if problems := check_predictions(entry, source, release):
        raise refuse(problems)
    return source


def _evaluate(
    model: str, release: Release, devices: tuple[str, ...], work: Path, progress: Progress
) -> Evaluation:
    request = Request(model=model, dataset=str(release.folder), output=work)
    if devices == release.device_ids(TEST_PART):
        return run(request, progress)
    return run(replace(request, devices=devices), progress)


def _predict(
    model: str, release: Release, devices: tuple[str, ...], folder: Path, progress: Progress
) -> None:
    structures = [release.device(name) for name in devices]
    targets = [Target(device.id, device.structure, device.gauge) for device in structures]
    predict(load_model(model), targets, folder, progress=progress)


def _require_claims(entry: Entry, evaluation: Evaluation) -> None:
    if entry.claimed is None:
        return
    if found := differences(entry.claimed, evaluation.result):
        name = entry.submission.name
        raise VcmbenchError("\n".join(f"{name}: not reproduced: {item}" for item in found))


def _require_original(
    entry: Entry, release: Release, predictions: Path, devices: tuple[str, ...]
) -> float:
    """Raise if predictions are the reference itself; return the largest fraction that is."""
    largest = 0.0
    for name in devices:
        device = release.device(name)
        matrix = align(read_predictions(predictions, device), device.pattern).matrix
        copied = copied_fraction(matrix, device)
        if copied > TOLERATED:
            raise bad_input(
                entry.submission.name,
                f"prediction for {name}",
                found=f"{copied:.1%} of the blocks exactly as in the reference, to the last µeV",
                expected="predictions",
            )
        largest = max(largest, copied)
    return largest


def _throughput(entry: Entry, scoring: Scoring) -> VerifiedThroughput | None:
    """Throughput that the maintainers vouch for."""
    if scoring.throughput is None and scoring.hardware is None:
        return None
    if scoring.throughput is None or scoring.hardware is None:
        raise VcmbenchError("found one of --throughput and --hardware, expected both or neither")
    digest = entry.claimed.model.digest if entry.claimed else None
    return verified_throughput(scoring.throughput, scoring.hardware, scoring.leaderboard, digest)
