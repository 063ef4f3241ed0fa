"""``manifest.json``: what a release consists of, down to the last byte."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vcmbench.errors import VcmbenchError, bad_input

MANIFEST = "manifest.json"

T = TypeVar("T")

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""Lower-case words joined by hyphens: safe in file names, addresses and ``SPLIT:PART``."""
StorePath = Annotated[str, Field(pattern=r"^(devices|leads)/[^/\\]+\.zarr\.zip$")]
"""A store, relative to the release folder and never outside it."""


class Strict(BaseModel):
    """A file's content: nothing unknown in it, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseInfo(Strict):
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


class FileEntry(Strict):
    """Size and checksum of one file of a release."""

    size: int
    """Bytes."""
    sha256: str


class StoreEntry(Strict):
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


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check it against its own checksum.

    Raises
    ------
    VcmbenchError
        If it cannot be read, or differs by a single bit from what was written.
    """
    manifest = read_json(_MANIFEST, path)
    expected = manifest.sealed()
    if manifest.checksum != expected.checksum:
        raise bad_input(path, "checksum", found=manifest.checksum, expected=expected.checksum)
    if path.read_bytes() != json_bytes(expected):
        raise bad_input(path, "bytes", found="other spelling", expected="the file as released")
    return manifest


def read_json(kind: TypeAdapter[T], path: Path) -> T:
    """Read a JSON file as a pydantic type.

    Raises
    ------
    VcmbenchError
        If the file cannot be read or its content is not of that type; it names the first field.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise VcmbenchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise VcmbenchError(f"{path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """Field and message of the first thing that is wrong."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "json_invalid":
        where = ["JSON"]
    return ": ".join([*([".".join(where)] if where else []), first["msg"].removeprefix(_PREFIX)])


_PREFIX = "Value error, "


def json_bytes(model: BaseModel) -> bytes:
    """Return the one way a model is written as JSON; absent values are left out."""
    content = model.model_dump(mode="json", exclude_none=True)
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


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
