"""What a submission says: `submission.yml` and the manifest of its predictions.

A submission is a folder of three files or more, all data::

    leaderboard/submissions/<name>/
        submission.yml     the model: who, what, licences, training data, cost
        result.json        the claimed figures, as `vcmbench evaluate` wrote them
        predictions.json   size and SHA-256 of every prediction, and where they are hosted
        result-PART.json   the claimed figures of a part out of distribution, if any
"""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import AfterValidator, ConfigDict, Field, PositiveFloat, PositiveInt

from vcmbench.documents import Document
from vcmbench.leaderboard.benchmark import TEST_PART
from vcmbench.release.manifest import Name
from vcmbench.store.predictions import SUFFIXES

SUBMISSION: Final = "submission.yml"
RESULT: Final = "result.json"
PREDICTIONS: Final = "predictions.json"
FILES: Final = (SUBMISSION, RESULT, PREDICTIONS)
_FURTHER: Final = re.compile(r"result-(?P<part>[a-z0-9]+(-[a-z0-9]+)*)\.json")

COMMON_LICENSES: Final = (
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Apache-2.0",
    "GPL-2.0-only",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "LGPL-3.0-or-later",
    "AGPL-3.0-only",
    "MPL-2.0",
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
)


def _spdx(text: str) -> str:
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        close = difflib.get_close_matches(text, COMMON_LICENSES, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"an SPDX expression such as 'MIT' or 'CC-BY-4.0'{hint}") from None


def _ends_with_slash(address: str) -> str:
    if not address.endswith("/"):
        raise ValueError("an address that ends with a slash")
    return address


# \p{C} holds control characters and those that turn the direction of writing.
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\p{C}]+$")]
"""One line of text."""
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\p{C}]+$")]
"""A paragraph."""
Url = Annotated[str, Field(max_length=500, pattern=r"^https://[\w.-]+\.[a-z]{2,}(/[!-~]*)?$")]
"""An address on the web by its name; nothing that a browser would run."""
License = Annotated[str, Field(max_length=200), AfterValidator(_spdx)]
"""SPDX expression."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[\w.+-]+$")]

Track = Literal["release only", "extra data"]


class _Described(Document):
    model_config = ConfigDict(use_attribute_docstrings=True)


class DatasetVersion(_Described):
    """One version of a dataset."""

    name: Name
    """Dataset."""
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """Version."""
    digest: Sha256
    """Digest of the release, as `vcmbench data info` prints it."""

    @property
    def label(self) -> str:
        """Name and version: ``"vcm-nano@1.0.0"``."""
        return f"{self.name}@{self.version}"


class TrainingData(_Described):
    """Everything that the weights have seen."""

    datasets: tuple[DatasetVersion, ...]
    """Releases; only their training and validation parts may have been used."""
    extra_data: tuple[Line, ...]
    """All other data, pretrained weights included; an empty list if there is none."""


class TrainingCost(_Described):
    """What the training took."""

    hardware: Line
    """Processor or accelerator, and how many."""
    hours: PositiveFloat
    """Wall time, h."""


class Submission(_Described):
    """``submission.yml``."""

    schema_version: Literal[1]
    name: Name
    """Name of the folder and of the page; lower-case words joined by hyphens."""
    version: Version
    """Version of the weights."""
    description: Text
    """What the model does, in a sentence or two."""
    authors: tuple[Line, ...] = Field(min_length=1, max_length=100)
    """Who is credited."""
    code_license: License
    """Licence of the code; `LicenseRef-closed` if it is not published."""
    weights_license: License
    """Licence of the weights; `LicenseRef-closed` if they are not published."""
    code: Url | None = None
    """Where the code is."""
    weights: Url | None = None
    """Where the weights are."""
    cutoff_ang: PositiveFloat
    """Range of the predicted blocks, Å."""
    n_parameters: PositiveInt
    """Fitted numbers."""
    training: TrainingData
    """What the weights have seen."""
    cost: TrainingCost | None = None
    """What the training took."""
    references: tuple[Line, ...] = Field(default=(), max_length=20)
    """Papers and addresses."""

    @property
    def track(self) -> Track:
        """Whether the model saw anything but releases."""
        return "extra data" if self.training.extra_data else "release only"


class HubHosting(_Described):
    """Predictions in a repository of the Hugging Face Hub."""

    kind: Literal["hub"]
    repo: Annotated[str, Field(max_length=200, pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$")]
    """Dataset repository."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    """Commit; a branch or tag would move."""


class UrlHosting(_Described):
    """Predictions below an address, ``<base><device>.zarr.zip``."""

    kind: Literal["url"]
    base: Annotated[Url, AfterValidator(_ends_with_slash)]
    """Address that ends with a slash."""


class BaselineHosting(_Described):
    """Predictions of a baseline, whose weights travel with the code: they are made anew."""

    kind: Literal["baseline"]
    baseline: Name
    """Its name."""
    model_digest: Sha256
    """SHA-256 over its files."""


class PredictionFile(_Described):
    """``<device>.zarr.zip``."""

    size: PositiveInt
    """Bytes."""
    sha256: Sha256
    """Checksum."""


class Predictions(_Described):
    """``predictions.json``: what was predicted, and where it lies."""

    schema_version: Literal[1]
    dataset: DatasetVersion
    """What was predicted."""
    hosting: Annotated[HubHosting | UrlHosting | BaselineHosting, Field(discriminator="kind")]
    """Where the predictions are."""
    files: dict[str, PredictionFile]
    """Prediction of each device by its id; empty for a baseline."""


def prediction_name(device_id: str) -> str:
    """File name of a device's prediction."""
    return f"{device_id}{SUFFIXES[0]}"


def result_name(part: str) -> str:
    """File name of the claims for a part."""
    return RESULT if part == TEST_PART else f"result-{part}.json"


def further_part(name: str) -> str | None:
    """Part whose claims a file holds by its name; None for another file."""
    match = _FURTHER.fullmatch(name)
    return match["part"] if match else None


def further_parts(folder: Path) -> list[str]:
    """Parts out of distribution that a submission has claims for, by name."""
    return sorted(part for path in folder.iterdir() if (part := further_part(path.name)))


def submission_digest(folder: Path) -> str:
    """SHA-256 over all files: a record belongs to exactly one state of a submission."""
    state = hashlib.sha256()
    for name in FILES:
        state.update(hashlib.sha256((folder / name).read_bytes()).digest())
    for part in further_parts(folder):
        state.update(part.encode())
        state.update(hashlib.sha256((folder / result_name(part)).read_bytes()).digest())
    return state.hexdigest()


def submission_folders(leaderboard: Path) -> list[Path]:
    """Folders of all submissions by name."""
    return sorted(path for path in (leaderboard / "submissions").glob("*") if path.is_dir())
