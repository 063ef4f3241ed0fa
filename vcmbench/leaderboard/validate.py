"""Checks of a submission that need nothing but its files and the release: data is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from vcmbench.errors import VcmbenchError
from vcmbench.leaderboard.archive import Limits, inspect_prediction
from vcmbench.leaderboard.benchmark import TEST_PART, Benchmark
from vcmbench.leaderboard.problems import Problem, closest, refuse, schema_problems, shown
from vcmbench.leaderboard.strict_yaml import read_strict_yaml
from vcmbench.leaderboard.submission import (
    FILES,
    PREDICTIONS,
    SUBMISSION,
    BaselineHosting,
    DatasetVersion,
    Predictions,
    Submission,
    further_part,
    further_parts,
    prediction_name,
    result_name,
    submission_digest,
)
from vcmbench.models.loader import known_baselines
from vcmbench.release import Release, find_release, known_releases
from vcmbench.release.manifest import file_entry
from vcmbench.scores.result import SCORE_SPEC, Result, Unavailable

MAX_JSON_BYTES: Final = 5_000_000

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """A submission in good order.

    Attributes
    ----------
    folder : Path
        Where it lies.
    submission, predictions
        Two of its files.
    claims : mapping of str to Result or None
        What is claimed for the test part and for those out of distribution; None where it is of
        an older score specification.
    """

    folder: Path
    submission: Submission
    claims: Mapping[str, Result | None]
    predictions: Predictions

    @property
    def claimed(self) -> Result | None:
        """Claims for the test part."""
        return self.claims[TEST_PART]

    @property
    def digest(self) -> str:
        """SHA-256 over the files."""
        return submission_digest(self.folder)


def read_entry(
    folder: Path, release: Release | None = None, *, accepted: str | None = None
) -> Entry:
    """Read a submission and check it.

    Parameters
    ----------
    folder : Path
        Folder of the submission.
    release : Release, optional
        The release that was predicted; found by its name if not given.
    accepted : str, optional
        Digest of the submission that has been accepted before: its claims may be of an older
        score specification.

    Raises
    ------
    VcmbenchError
        Naming every problem, a line each.
    """
    entry, problems = check_submission(folder, release, accepted=accepted)
    if entry is None or problems:
        raise refuse(problems)
    return entry


def check_submission(
    folder: Path, release: Release | None = None, *, accepted: str | None = None
) -> tuple[Entry | None, list[Problem]]:
    """Check a submission; the parameters are those of `read_entry`.

    Returns
    -------
    entry : Entry or None
        None where a file cannot be read as what it is.
    problems : list of Problem
        Everything that is wrong.
    """
    problems = _folder_problems(folder)
    if problems:
        return None, problems
    submission, found = _read(folder / SUBMISSION, Submission, read_strict_yaml)
    problems += found
    claims, unread = _read_claims(folder, is_accepted=accepted == submission_digest(folder))
    problems += unread
    predictions, found = _read(folder / PREDICTIONS, Predictions, _read_json)
    problems += found
    if submission is not None:
        problems += _submission_problems(submission, folder.resolve().name)
    if predictions is not None:
        problems += _against_release(claims, predictions, release)
    if submission is None or predictions is None or unread:
        return None, problems
    problems += _hosting_problems(submission, claims, predictions)
    return Entry(folder, submission, claims, predictions), problems


def check_predictions(
    entry: Entry, folder: Path, release: Release, devices: tuple[str, ...] | None = None
) -> list[Problem]:
    """Check downloaded or local predictions against their manifest, and look into each archive.

    Parameters
    ----------
    entry : Entry
        Submission they belong to.
    folder : Path
        Folder with ``<device>.zarr.zip``; what the manifest does not name is not looked at.
    release : Release
        What was predicted.
    devices : tuple of str, optional
        Devices whose predictions lie there, all if not given.
    """
    problems = []
    for device_id, expected in entry.predictions.files.items():
        if devices is not None and device_id not in devices:
            continue
        path = folder / prediction_name(device_id)
        if path.is_symlink() or not path.is_file():
            problems.append(Problem(path.name, "file", "none, or a link", "a zipped Zarr store"))
            continue
        size = path.stat().st_size
        if size != expected.size:
            problems.append(Problem(path.name, "size", f"{size} bytes", f"{expected.size}"))
        elif (digest := file_entry(path).sha256) != expected.sha256:
            problems.append(Problem(path.name, "sha256", digest, expected.sha256))
        else:
            limits = Limits.of(release.device(device_id).pattern)
            problems += inspect_prediction(path, limits)
    return problems


def _folder_problems(folder: Path) -> list[Problem]:
    """Look at what lies in the folder before any of it is opened."""
    if folder.is_symlink() or not folder.is_dir():
        return [Problem(str(folder), "folder", "none, or a link", "a submission's folder")]
    problems = []
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        path = folder / name
        if name not in FILES and further_part(name) is None:
            problems.append(Problem(shown(name), "file", "a foreign file", closest(name, FILES)))
        elif path.is_symlink() or not path.is_file():
            problems.append(Problem(name, "file", "a link or folder", "a file"))
        elif path.stat().st_size > MAX_JSON_BYTES:
            problems.append(
                Problem(name, "size", f"{path.stat().st_size} bytes", f"at most {MAX_JSON_BYTES}")
            )
    problems += [Problem(name, "file", "none", "one") for name in FILES if name not in names]
    return problems


def _read(
    path: Path, kind: type[ModelT], read: Callable[[Path], Any]
) -> tuple[ModelT | None, list[Problem]]:
    try:
        content = read(path)
        # JSON mode: lists are tuples there, and numbers are not taken for text.
        return kind.model_validate_json(json.dumps(content, default=_no_json)), []
    except ValidationError as error:
        return None, schema_problems(path.name, kind, error)
    except (VcmbenchError, ValueError, TypeError, RecursionError) as error:
        detail = str(error).removeprefix(f"{path.name}: ")
        return None, [Problem(path.name, "content", f"unreadable ({detail})", "a plain document")]


def _read_claims(
    folder: Path, *, is_accepted: bool
) -> tuple[dict[str, Result | None], list[Problem]]:
    """Read the claims for each part; of an accepted submission, old ones are passed over."""
    claims: dict[str, Result | None] = {}
    problems = []
    for part in (TEST_PART, *further_parts(folder)):
        path = folder / result_name(part)
        claims[part] = None
        if not (is_accepted and _is_outdated(path)):
            claims[part], found = _read(path, Result, _read_json)
            problems += found
    return claims, problems


def _read_json(path: Path) -> Any:
    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is no number")

    return json.loads(path.read_bytes(), parse_constant=refuse_constant)


def _is_outdated(path: Path) -> bool:
    """Whether a claim is of an older score specification."""
    try:
        spec = _read_json(path)["score_spec"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return isinstance(spec, int) and spec < SCORE_SPEC


def _no_json(value: object) -> str:
    """YAML reads an unquoted day as a date; it is the text that was meant."""
    return str(value)


def _submission_problems(submission: Submission, folder_name: str) -> list[Problem]:
    problems = []
    if submission.name != folder_name:
        problems.append(
            Problem(SUBMISSION, "name", shown(submission.name), f"{folder_name!r}, the folder's")
        )
    for index, dataset in enumerate(submission.training.datasets):
        problems += _dataset_problems(f"training.datasets.{index}", SUBMISSION, dataset)
    return problems


def _dataset_problems(field: str, file: str, dataset: DatasetVersion) -> list[Problem]:
    """Compare a named release with the one at hand, if there is one of that name."""
    known = known_releases()
    if dataset.name not in known:
        return []  # One that is on the Hub only; the release that was predicted is checked apart.
    manifest = Release.open(known[dataset.name]).manifest
    if dataset.version == manifest.version and dataset.digest != manifest.digest:
        return [Problem(file, f"{field}.digest", shown(dataset.digest), manifest.digest)]
    return []


def _against_release(
    claims: Mapping[str, Result | None], predictions: Predictions, given: Release | None
) -> list[Problem]:
    """Compare the claims and the list of predictions with the release."""
    try:
        release = given or find_release(predictions.dataset.label)
    except VcmbenchError as error:
        label = predictions.dataset.label
        return [Problem(PREDICTIONS, "dataset", shown(label), f"a known release ({error})")]
    benchmark = Benchmark.of(release)
    manifest = release.manifest
    expected = {"name": manifest.name, "version": manifest.version, "digest": manifest.digest}
    documents = [
        (PREDICTIONS, predictions),
        *((result_name(p), claim) for p, claim in claims.items()),
    ]
    problems = [
        Problem(file, f"dataset.{field}", shown(found), repr(value))
        for file, document in documents
        for field, value in expected.items()
        if document and (found := getattr(document.dataset, field)) != value
    ]
    for part, claimed in claims.items():
        problems += _part_problems(part, claimed, benchmark, release.label)
    if not isinstance(predictions.hosting, BaselineHosting):
        found, devices = set(predictions.files), benchmark.devices(claims)
        problems += [
            Problem(PREDICTIONS, f"files.{shown(name)}", "a file", closest(name, devices))
            for name in sorted(found - set(devices))
        ]
        problems += [
            Problem(PREDICTIONS, f"files.{name}", "nothing", "size and sha256 of its prediction")
            for name in devices
            if name not in found
        ]
    return problems


def _part_problems(
    part: str, claimed: Result | None, benchmark: Benchmark, label: str
) -> list[Problem]:
    """Refuse claims for another part than the file's name says."""
    if part not in benchmark.parts:
        return [Problem(result_name(part), "part", part, closest(part, benchmark.further))]
    if claimed is None:
        return []
    problems = []
    if set(claimed.dataset.devices) != set(benchmark.parts[part]):
        problems.append(
            Problem(
                result_name(part),
                "dataset.devices",
                shown(claimed.dataset.devices),
                f"the {part} part of {label}: {', '.join(benchmark.parts[part])}",
            )
        )
    return problems + _claim_problems(part, claimed)


def _claim_problems(part: str, claimed: Result) -> list[Problem]:
    """Refuse claims that are not of the whole score."""
    file = result_name(part)
    problems = []
    if isinstance(claimed.hamiltonian, Unavailable):
        problems.append(
            Problem(file, "hamiltonian", "unavailable", "the errors of the entries of H")
        )
    transmission = claimed.transmission
    if not isinstance(transmission, Unavailable):
        if (stride := transmission.energy_stride) != 1:
            problems.append(
                Problem(
                    file, "transmission.energy_stride", str(stride), "1: evaluate without --quick"
                )
            )
        # Out of distribution T may be too small for the solver: it does not count then.
        if part == TEST_PART and not transmission.gates.passed:
            problems.append(Problem(file, "transmission.gates.passed", "False", "True"))
    return problems


def _hosting_problems(
    submission: Submission, claims: Mapping[str, Result | None], predictions: Predictions
) -> list[Problem]:
    hosting = predictions.hosting
    if not isinstance(hosting, BaselineHosting):
        return []
    problems = []
    baselines = known_baselines()
    if hosting.baseline not in baselines:
        problems.append(
            Problem(
                PREDICTIONS,
                "hosting.baseline",
                shown(hosting.baseline),
                closest(hosting.baseline, baselines),
            )
        )
    if hosting.baseline != submission.name:
        problems.append(
            Problem(
                SUBMISSION, "name", shown(submission.name), f"the baseline's, {hosting.baseline!r}"
            )
        )
    problems += [
        Problem(
            result_name(part), "model.digest", shown(claimed.model.digest), hosting.model_digest
        )
        for part, claimed in claims.items()
        if claimed and claimed.model.digest != hosting.model_digest
    ]
    if predictions.files:
        problems.append(
            Problem(PREDICTIONS, "files", f"{len(predictions.files)}", "none: they are made anew")
        )
    return problems
