"""Real runs for the importers' tests, and what spoils them."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from vcmbench.importers import ImportedRun, import_cp2k

DATA = Path(__file__).parent / "data"
RECORD = np.dtype(
    [("head", "<u4"), ("row", "<i4"), ("col", "<i4"), ("value", "<f8"), ("tail", "<u4")]
)


@cache
def unpacked(name: str) -> Path:
    """Folder of a run; not to be changed."""
    folder = Path(tempfile.mkdtemp(prefix="vcmbench-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(folder / name, filter="data")
    return folder / name


@cache
def imported(name: str) -> ImportedRun:
    """Import of a run, with every check."""
    return import_cp2k(unpacked(name), kind="bulk")


def copied(name: str, folder: Path) -> Path:
    """Copy of a run that a test may spoil."""
    return Path(shutil.copytree(unpacked(name), folder / name))


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def read_text(path: Path) -> np.ndarray:
    """(n, 3) rows, columns and values of a text matrix."""
    return np.array(path.read_text().split(), dtype=float).reshape(-1, 3)


def write_binary(path: Path, table: np.ndarray) -> None:
    """Write rows, columns and values as CP2K's BINARY does."""
    records = np.empty(len(table), RECORD)
    records["head"] = records["tail"] = 16
    records["row"], records["col"], records["value"] = table.T
    records.tofile(path)


def write_text(path: Path, table: np.ndarray) -> None:
    """Write rows, columns and values as CP2K does without BINARY."""
    lines = [f"{row:8.0f}{column:8.0f}{value:24.16E}\n" for row, column, value in table]
    path.write_text("".join(lines))


def dense(run: ImportedRun, k: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """All of H(k) and S(k) that was printed."""
    return run.raw_hamiltonian.to_csr(k).toarray(), run.raw_overlap.to_csr(k).toarray()
