"""What the site shows: scored submissions, one table per dataset version and specification."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vcmbench.errors import VcmbenchError
from vcmbench.leaderboard.hardware import Machine, read_hardware
from vcmbench.leaderboard.record import Record, accepted_digest, read_record, record_path
from vcmbench.leaderboard.site.figures import FIGURES, HIDDEN, Figure, ranking
from vcmbench.leaderboard.submission import Submission, submission_folders
from vcmbench.leaderboard.validate import Entry, read_entry


@dataclass(frozen=True)
class Model:
    """A submission that was scored."""

    entry: Entry
    record: Record

    @property
    def name(self) -> str:
        """Name of its page."""
        return self.submission.name

    @property
    def submission(self) -> Submission:
        """What it says about itself."""
        return self.entry.submission

    @property
    def page(self) -> str:
        """Address of its page."""
        return f"models/{self.name}.html"


@dataclass(frozen=True)
class Board:
    """One table: models that were scored on the same data by the same definitions."""

    dataset: str
    version: str
    digest: str
    score_spec: int
    models: tuple[Model, ...]

    @property
    def label(self) -> str:
        """Name and version of the dataset."""
        return f"{self.dataset}@{self.version}"

    @property
    def key(self) -> str:
        """Identifier in addresses."""
        return f"{self.dataset}-{self.version}-spec-{self.score_spec}"

    @property
    def dataset_page(self) -> str:
        """Address of the dataset's card."""
        return f"datasets/{self.dataset}-{self.version}.html"

    @property
    def compare_page(self) -> str:
        """Address of the comparison of its models."""
        return f"compare/{self.key}.html"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Columns; the hidden test only where a model has been scored on it."""
        has_hidden = any(model.record.hidden for model in self.models)
        return (HIDDEN, *FIGURES) if has_hidden else FIGURES


class Speed(NamedTuple):
    """A verified throughput with the accuracy of the same model."""

    model: Model
    atoms_per_s: float
    mae_mev: float
    on_front: bool


class Race(NamedTuple):
    """Accuracy against throughput of one board's models on one machine."""

    board: Board
    machine: Machine
    speeds: tuple[Speed, ...]


@dataclass(frozen=True)
class Contents:
    """Everything on the site.

    Attributes
    ----------
    boards : tuple of Board
        Newest specification and dataset first.
    waiting : tuple of Submission
        Submissions without a record of their present state.
    remarks : tuple of str
        Submissions that are not shown, and why.
    """

    boards: tuple[Board, ...]
    waiting: tuple[Submission, ...]
    remarks: tuple[str, ...]
    machines: dict[str, Machine]

    def races(self, board: Board) -> list[Race]:
        """Models of a board on each machine that any of them was measured on."""
        found = []
        for name, machine in self.machines.items():
            timed = [
                (model, verified.atoms_per_s, ranking(model.record))
                for model in board.models
                if (verified := model.record.throughput) and verified.hardware == name
            ]
            if timed:
                speeds = [
                    Speed(
                        model,
                        speed,
                        mae,
                        not any(
                            (s >= speed and m <= mae) and (s > speed or m < mae)
                            for _, s, m in timed
                        ),
                    )
                    for model, speed, mae in timed
                ]
                found.append(Race(board, machine, tuple(speeds)))
        return found


def read_contents(leaderboard: Path) -> Contents:
    """Read all submissions and records; one that is damaged hides no other."""
    models: dict[tuple[str, str, str, int], list[Model]] = defaultdict(list)
    waiting, remarks = [], []
    for folder in submission_folders(leaderboard):
        path = record_path(leaderboard, folder.name)
        try:
            entry = read_entry(folder, accepted=accepted_digest(path))
        except VcmbenchError as error:
            remarks.append(f"{folder.name} is not shown: {error}")
            continue
        if accepted_digest(path) != entry.digest:
            waiting.append(entry.submission)
            continue
        try:
            record = read_record(path)
        except VcmbenchError as error:
            remarks.append(f"{folder.name} is not shown: {error}")
            continue
        dataset = record.result.dataset
        key = (dataset.name, dataset.version, dataset.digest, record.result.score_spec)
        models[key].append(Model(entry, record))
    boards = [
        Board(*key, tuple(sorted(found, key=lambda m: (ranking(m.record), m.name))))
        for key, found in models.items()
    ]
    boards.sort(key=lambda b: (-b.score_spec, b.dataset, _descending(b.version)))
    return Contents(
        tuple(boards), tuple(waiting), tuple(remarks), read_hardware(leaderboard).machines
    )


def _descending(version: str) -> tuple[int, ...]:
    return tuple(-int(part) for part in version.split("."))
