"""Verified records: what scoring found, and what the site is built from."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ConfigDict, Field

from vcmbench.documents import Document, read_json
from vcmbench.leaderboard.throughput import VerifiedThroughput
from vcmbench.release.manifest import Name
from vcmbench.scores.result import Bounds, Result, Unavailable
from vcmbench.store.content import atomic_file

if TYPE_CHECKING:
    from vcmbench.evaluate import DeviceCurves

_NUMBERS = re.compile(r"\[\s+([^\[\]{}\"]+?)\s+\]")


class _Finite(Document):
    model_config = ConfigDict(allow_inf_nan=False)


class Curves(_Finite):
    """k-averaged T(E) of one device, to six digits."""

    energies_ev: tuple[float, ...]
    """Relative to the Fermi level, eV."""
    reference: tuple[float, ...]
    """From DFT."""
    predicted: tuple[float, ...]
    """Predicted, with the contacts from DFT."""
    all_predicted: tuple[float, ...]
    """Everything predicted but the lead."""

    @classmethod
    def of(cls, curves: DeviceCurves) -> Self:
        """Round the curves of an evaluation."""
        return cls(
            energies_ev=_rounded(curves.reference.energies_ev),
            reference=_rounded(curves.reference.transmission),
            predicted=_rounded(curves.predicted.transmission),
            all_predicted=_rounded(curves.all_predicted.transmission),
        )


class HiddenScores(_Finite):
    """Score on the hidden test, all devices together: single devices would tell of the labels."""

    n_devices: int
    """Devices whose Hamiltonian is withheld."""
    mae_mev: float
    """MAE of H closer than 8 Å, meV."""
    mae_full_mev: float
    """MAE of H over the whole support, meV."""
    mae_bounds_mev: Bounds | None
    """Interval of `mae_mev`."""
    log10_mae: float | None
    """Mean |Δlog10 T|, decades."""
    log10_mae_bounds: Bounds | None
    """Interval of `log10_mae`."""

    @classmethod
    def of(cls, result: Result) -> Self:
        """Take from the result on the hidden devices what may be shown."""
        h, t = result.hamiltonian, result.transmission
        assert not isinstance(h, Unavailable)
        curve = None if isinstance(t, Unavailable) else t
        return cls(
            n_devices=len(result.dataset.devices),
            mae_mev=h.mae_mev,
            mae_full_mev=h.mae_full_mev,
            mae_bounds_mev=h.mae_bounds_mev,
            log10_mae=curve.log10_mae if curve else None,
            log10_mae_bounds=curve.log10_mae_bounds if curve else None,
        )


class Record(Document):
    """``leaderboard/records/<name>.json``."""

    schema_version: Literal[1] = 1
    name: Name
    """Submission."""
    submission_digest: str
    """SHA-256 over its files: a record of another state is of no use."""
    scored: datetime.date
    """Day of the scoring."""
    result: Result
    """Recomputed from the predictions. Its throughput is as it was where the scoring ran."""
    hidden: HiddenScores | None
    """Score on the hidden test; null without one."""
    copied_fraction: float = Field(ge=0, le=1)
    """Largest fraction of blocks that are exactly the reference's."""
    transmission: dict[str, Curves]
    """T(E) of the public test devices."""
    throughput: VerifiedThroughput | None
    """Null where the maintainers measured none."""

    @property
    def mae_mev(self) -> float:
        """MAE of H on the public test devices, meV."""
        assert not isinstance(self.result.hamiltonian, Unavailable)
        return self.result.hamiltonian.mae_mev

    @property
    def summary(self) -> str:
        """What was found, in a line."""
        parts = [f"MAE {self.mae_mev:.4g} meV"]
        if self.hidden is not None:
            parts.append(f"hidden test {self.hidden.mae_mev:.4g} meV")
        if not isinstance(self.result.transmission, Unavailable):
            parts.append(f"|Δlog10 T| {self.result.transmission.log10_mae:.3g} decades")
        if self.throughput is not None:
            speed = self.throughput
            parts.append(f"{speed.atoms_per_s:,.0f} atoms/s on {speed.hardware}")
        return ", ".join(parts)


def record_path(leaderboard: Path, name: str) -> Path:
    """Where the record of a submission lies."""
    return leaderboard / "records" / f"{name}.json"


def write_record(path: Path, record: Record) -> None:
    """Write a record; lists of numbers take one line each."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
    compact = _NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text)
    with atomic_file(path) as temporary:
        temporary.write_text(f"{compact}\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    VcmbenchError
        If it is none of this score specification.
    """
    return read_json(Record, path)


def accepted_digest(path: Path) -> str | None:
    """Digest of the submission that a record, of whatever specification, belongs to."""
    try:
        return str(json.loads(path.read_bytes())["submission_digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
