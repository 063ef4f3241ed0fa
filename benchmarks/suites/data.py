"""ASV: stores, importer and releases."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from vcmbench.importers import import_cp2k
from vcmbench.release import find_release, verify_release
from vcmbench.store import content_digest, read_device, write_device

RUN = Path(__file__).parents[2] / "tests/data/lead-tin.tar.xz"


class Store:
    """Device store: time, memory and size."""

    def setup(self) -> None:
        release = find_release("vcm-demo")
        self.device = release.device("device-b")
        self.digest = release.manifest.devices["device-b"].digest
        self.path = release.folder / release.manifest.devices["device-b"].path
        self.folder = tempfile.TemporaryDirectory()
        assert content_digest(read_device(self.path)) == self.digest

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_read(self) -> None:
        read_device(self.path)

    def peakmem_read(self) -> None:
        read_device(self.path)

    def time_write(self) -> None:
        assert write_device(Path(self.folder.name) / "b.zarr.zip", self.device) == self.digest

    def track_bytes_per_entry(self) -> float:
        return self.path.stat().st_size / (2 * self.device.pattern.n_entries)

    track_bytes_per_entry.unit = "bytes"


class Cp2k:
    """Import of a k-point run of eight atoms, with its checks."""

    def setup(self) -> None:
        # Made first: it is cleaned up even where the benchmark is skipped.
        self.folder = tempfile.TemporaryDirectory()
        if not RUN.exists():
            raise NotImplementedError("the run is part of the repository, not of the package")
        with tarfile.open(RUN) as archive:
            archive.extractall(self.folder.name, filter="data")

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_import(self) -> None:
        found = import_cp2k(Path(self.folder.name), kind="bulk")
        assert found.device.structure.n_sites == 8


class Verification:
    """Every byte and every matrix of the bundled release."""

    def setup(self) -> None:
        self.release = find_release("vcm-demo")

    def time_verify(self) -> None:
        assert verify_release(self.release) == []
