"""Stages of a long run: measured, kept on disk, and found again when the run is repeated."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from vcmbench.machine import peak_memory_bytes, reset_peak_memory
from vcmbench.scores.result import StageRecord
from vcmbench.store.content import atomic_file

T = TypeVar("T")


@dataclass
class Stages:
    """Cost of each stage so far, and the folder where results of stages are kept.

    Parameters
    ----------
    folder : Path
        Folder of the kept results, one JSON file each.
    """

    folder: Path
    records: list[StageRecord] = field(default_factory=list)

    @contextmanager
    def measure(self, name: str, *, cached: bool = False) -> Iterator[None]:
        """Record wall time and peak memory of the block."""
        reset_peak_memory()
        start = time.perf_counter()
        yield
        self.records.append(
            StageRecord(
                name=name,
                wall_s=time.perf_counter() - start,
                peak_memory_bytes=peak_memory_bytes(),
                cached=cached,
            )
        )

    def kept(self, name: str, key: object, kind: TypeAdapter[T], compute: Callable[[], T]) -> T:
        """Return the kept result of a stage, or compute and keep it.

        Parameters
        ----------
        name : str
            Name of the stage.
        key : JSON value
            Everything that the result depends on.
        kind : TypeAdapter
            Type of the result.
        compute : callable
            Makes the result.
        """
        value = self.find(name, key, kind)
        with self.measure(name, cached=value is not None):
            if value is None:
                value = compute()
                self.keep(name, key, kind, value)
        return value

    def find(self, name: str, key: object, kind: TypeAdapter[T]) -> T | None:
        """Return the kept result of a stage if it was made from the same `key`."""
        try:
            document = json.loads(self._path(name).read_text())
            if document["key"] == _digest(key):
                return kind.validate_python(document["value"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            # A missing or damaged file means no more than computing again.
            return None
        return None

    def keep(self, name: str, key: object, kind: TypeAdapter[T], value: T) -> None:
        """Keep the result of a stage."""
        document = {"key": _digest(key), "value": kind.dump_python(value, mode="json")}
        with atomic_file(self._path(name)) as temporary:
            temporary.write_text(json.dumps(document))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '-').replace(' ', '-')}.json"


def _digest(key: object) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
