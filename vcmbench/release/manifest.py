"""``manifest.json``: what a release consists of, down to the last byte."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vcmbench.errors import bad_input
from vcmbench.jsonfile import Document, json_bytes, read_json

MANIFEST = "manifest.json"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""Lower-case words joined by hyphens: safe in file names, addresses and ``SPLIT:PART``."""
StorePath = Annotated[str, Field(pattern=r"^(devices|leads)/[^/\\]+\.zarr\.zip$")]
"""A store, relative to the release folder and never outside it."""


class ReleaseInfo(Document):
    """What a release says about itself."""

    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    """Never changed once published."""
    date: datetime.date
    """Day of the release."""
    license: str
    """SPDX identifier."""
    description: str
    """One or two sentences."""
    authors: tuple[str, ...] = Field(min_length=1)
    tags: tuple[str, ...] = ()
    """Keywords for the Hub."""

    @property
    def label(self) -> str:
        """Name and version: ``"vcm-demo@1.0.0"``."""
        return f"{self.name}@{self.version}"


class FileEntry(Document):
    """Size and checksum of one file of a release."""

    size: int
    """Bytes."""
    sha256: str


class StoreEntry(Document):
    """One device or lead."""

    path: StorePath
    digest: str
    """SHA-256 of the content, independent of chunks and compression."""
    complete_digest: str | None = None
    """Where the Hamiltonian is withheld: the digest of the device with it."""


class Manifest(ReleaseInfo):
    """What a release consists of."""

    schema_version: Literal[1]
    support_ang: float
    """Every pair of sites closer than this has a block, Å."""
    devices: dict[str, StoreEntry]
    leads: dict[str, StoreEntry]
    files: dict[str, FileEntry]
    """Every file of the release but the manifest itself."""
    checksum: str = ""
    """SHA-256 of this file with an empty checksum."""

    @property
    def digest(self) -> str:
        """SHA-256 of the ids and content digests of all devices and leads.

        A device whose Hamiltonian is withheld counts with its complete content, so that the
        public half of a release, the joined release and every result on it name the same data.
        """
        stores = {**self.devices, **{f"leads/{k}": v for k, v in self.leads.items()}}
        lines = [
            f"{name} {entry.complete_digest or entry.digest}\n"
            for name, entry in sorted(stores.items())
        ]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def sealed(self) -> Manifest:
        """Return the manifest with its checksum."""
        unsealed = self.model_copy(update={"checksum": ""})
        checksum = hashlib.sha256(json_bytes(unsealed)).hexdigest()
        return self.model_copy(update={"checksum": checksum})


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check it against its own checksum.

    Raises
    ------
    VcmbenchError
        If it cannot be read, or differs by a single bit from what was written.
    """
    manifest = read_json(Manifest, path)
    expected = manifest.sealed()
    if manifest.checksum != expected.checksum:
        raise bad_input(path, "checksum", found=manifest.checksum, expected=expected.checksum)
    if path.read_bytes() != json_bytes(expected):
        raise bad_input(path, "bytes", found="other spelling", expected="the file as released")
    return manifest


def file_entry(path: Path) -> FileEntry:
    """Size and checksum of a file."""
    with path.open("rb") as handle:
        return FileEntry(
            size=path.stat().st_size, sha256=hashlib.file_digest(handle, "sha256").hexdigest()
        )


def bytes_entry(content: bytes) -> FileEntry:
    """Size and checksum of a file that is yet to be written."""
    return FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def release_files(folder: Path) -> list[str]:
    """List a release folder's files but its manifest; hidden ones are not part of it."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in found
        if path != Path(MANIFEST) and not any(part.startswith(".") for part in path.parts)
    )
