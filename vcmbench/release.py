"""A dataset release: a folder of device stores with a manifest and splits (DESIGN.md §4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vcmbench.device import SUPPORT_ANG, Device
from vcmbench.errors import VcmbenchError, bad_input, unknown_name
from vcmbench.hub.record import left_out, not_downloaded
from vcmbench.resources import resource_folders
from vcmbench.store.content import atomic_file, read_content
from vcmbench.store.device import read_device

MANIFEST = "manifest.json"
DEFAULT_SPLIT = "device"

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """Size and checksum of one file of a release."""

    size: int
    """Bytes."""
    sha256: str


class StoreEntry(_Strict):
    """One device or lead."""

    path: str
    """Store, relative to the release folder."""
    digest: str
    """SHA-256 of the content, independent of chunks and compression."""


class Manifest(_Strict):
    """``manifest.json``: what a release consists of."""

    schema_version: Literal[1]
    name: str
    version: str
    license: str
    support_ang: float
    """Every pair of sites closer than this has a block, Å."""
    devices: dict[str, StoreEntry]
    leads: dict[str, StoreEntry]
    files: dict[str, FileEntry]
    """Every file of the release but the manifest itself."""

    @property
    def digest(self) -> str:
        """SHA-256 of the ids and content digests of all devices and leads."""
        stores = {**self.devices, **{f"leads/{k}": v for k, v in self.leads.items()}}
        lines = [f"{name} {entry.digest}\n" for name, entry in sorted(stores.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class ReleaseRef(_Strict):
    """The release that a split belongs to."""

    name: str
    version: str
    digest: str


class Split(_Strict):
    """``splits/<name>.json``: which devices serve what."""

    schema_version: Literal[1]
    name: str
    version: str
    release: ReleaseRef
    parts: dict[str, tuple[str, ...]]
    """Device ids of each part: train, validation, test, …"""

    def part(self, name: str) -> tuple[str, ...]:
        """Device ids of one part."""
        if name not in self.parts:
            raise unknown_name(f"part of split {self.name!r}", name, self.parts)
        return self.parts[name]


@dataclass(frozen=True)
class Release:
    """An opened release.

    Parameters
    ----------
    folder : Path
        Folder with the manifest.
    manifest : Manifest
        Its content.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Release:
        """Read the manifest of a release folder."""
        return cls(folder, _read_json(Manifest, folder / MANIFEST))

    @property
    def label(self) -> str:
        """Name and version: ``"vcm-demo@1.0.0"``."""
        return f"{self.manifest.name}@{self.manifest.version}"

    def device(self, device_id: str) -> Device:
        """Load one device."""
        if device_id in self.left_out:
            raise not_downloaded(self.folder, self.label, [device_id])
        return self._load("device", device_id, self.manifest.devices)

    def lead(self, lead_id: str) -> Device:
        """Load one lead."""
        return self._load("lead", lead_id, self.manifest.leads)

    def _load(self, kind: str, name: str, entries: dict[str, StoreEntry]) -> Device:
        if name not in entries:
            raise unknown_name(f"{kind} of {self.label}", name, entries)
        path = self.folder / entries[name].path
        device = read_device(path)
        if device.id != name:
            raise bad_input(path, "id", found=device.id, expected=name)
        return device

    @property
    def left_out(self) -> set[str]:
        """Ids of the devices that a partial download left out."""
        return left_out(self.folder, self.manifest.devices)

    @cached_property
    def split_names(self) -> list[str]:
        """Names of the splits that come with the release."""
        return sorted(path.stem for path in (self.folder / "splits").glob("*.json"))

    def split(self, name: str = DEFAULT_SPLIT) -> Split:
        """Load one split and check that it belongs to this release."""
        if name not in self.split_names:
            raise unknown_name(f"split of {self.label}", name, self.split_names)
        path = self.folder / "splits" / f"{name}.json"
        split = _read_json(Split, path)
        if split.release.digest != self.manifest.digest:
            raise bad_input(
                path,
                "release: digest",
                found=split.release.digest,
                expected=f"{self.manifest.digest} of {self.label}",
            )
        for part, ids in split.parts.items():
            if unknown := sorted(set(ids) - set(self.manifest.devices)):
                raise bad_input(path, f"parts: {part}", found=unknown, expected="devices it holds")
        return split

    def device_ids(self, selection: str) -> tuple[str, ...]:
        """Device ids of ``"PART"`` of the device split or of ``"SPLIT:PART"``."""
        split, _, part = selection.rpartition(":")
        return self.split(split or DEFAULT_SPLIT).part(part)


def find_release(spec: str) -> Release:
    """Find a release: a folder, one that travels with the code, one in the cache, one on the Hub.

    Parameters
    ----------
    spec : str
        A release folder, ``"vcm-demo"`` or ``"vcm-demo@1.0.0"``.

    Returns
    -------
    Release
        Downloaded to the cache, with a remark on standard error, if it is only on the Hub.

    Raises
    ------
    VcmbenchError
        If there is none, or it cannot be downloaded.
    """
    if (Path(spec) / MANIFEST).is_file():
        return Release.open(Path(spec))
    if Path(spec).is_dir():
        raise bad_input(spec, MANIFEST, found="no such file", expected="one in a release folder")
    name, _, version = spec.partition("@")
    known = known_releases()
    if name in known:
        release = Release.open(known[name])
        if version in ("", release.manifest.version):
            return release
    from vcmbench.hub.download import open_or_download

    return open_or_download(spec)


def known_releases() -> dict[str, Path]:
    """Releases that travel with the code, by name."""
    folders = resource_folders("releases")
    return {name: folder for name, folder in folders.items() if (folder / MANIFEST).is_file()}


def make_release(
    folder: Path,
    *,
    name: str,
    version: str,
    license_id: str,
    card: Path,
    parts: dict[str, tuple[str, ...]],
    support_ang: float = SUPPORT_ANG,
) -> Release:
    """Complete a folder of stores to a release: card, device split, manifest.

    Parameters
    ----------
    folder : Path
        Folder with ``devices/`` and ``leads/``.
    name, version, license_id : str
        Entries of the manifest.
    card : Path
        Dataset card, copied to ``README.md``.
    parts : dict of str to tuple of str
        Device ids of each part of the device split.
    support_ang : float
        Support of the stored blocks, Å.

    Returns
    -------
    Release

    Raises
    ------
    VcmbenchError
        If a store or the card cannot be read, or the split names a device that is not there.
    """
    stores = {kind: _store_entries(folder, kind) for kind in ("devices", "leads")}
    for part, ids in parts.items():
        if unknown := sorted(set(ids) - set(stores["devices"])):
            raise bad_input("split", part, found=unknown, expected=sorted(stores["devices"]))
    try:
        card_text = card.read_text(encoding="utf-8")
    except OSError as error:
        raise VcmbenchError(f"{card}: cannot be read ({error.strerror})") from error
    with atomic_file(folder / "README.md") as temporary:
        temporary.write_text(card_text, encoding="utf-8")
    manifest = Manifest(
        schema_version=1,
        name=name,
        version=version,
        license=license_id,
        support_ang=support_ang,
        **stores,
        files={},
    )
    reference = ReleaseRef(name=name, version=version, digest=manifest.digest)
    split = Split(schema_version=1, name=DEFAULT_SPLIT, version="1", release=reference, parts=parts)
    _write_json(folder / "splits" / f"{DEFAULT_SPLIT}.json", split)
    files = {p.relative_to(folder).as_posix(): _file_entry(p) for p in _release_files(folder)}
    manifest = manifest.model_copy(update={"files": files})
    _write_json(folder / MANIFEST, manifest)
    return Release(folder, manifest)


def verify_release(
    release: Release, progress: Callable[[str], None] = lambda _name: None
) -> list[str]:
    """Compare every file and device with the manifest.

    Parameters
    ----------
    release : Release
        What to verify.
    progress : callable
        Called with the name of each file before it is read.

    Returns
    -------
    list of str
        One line per problem; empty if all is as released.
    """
    return list(_problems(release, progress))


def _problems(release: Release, progress: Callable[[str], None]) -> Iterator[str]:
    folder, manifest = release.folder, release.manifest
    present = {path.relative_to(folder).as_posix() for path in _release_files(folder)}
    absent = {manifest.devices[name].path for name in release.left_out}
    for name in sorted(present - set(manifest.files)):
        yield f"{folder / name}: not in the manifest"
    for name, expected in manifest.files.items():
        progress(name)
        if name in absent:
            continue
        if name not in present:
            yield f"{folder / name}: missing"
        elif (found := _file_entry(folder / name)) != expected:
            yield (
                f"{folder / name}: found {found.size} bytes with sha256 {found.sha256}, "
                f"expected {expected.size} bytes with sha256 {expected.sha256}"
            )
    for entry in (*manifest.devices.values(), *manifest.leads.values()):
        if entry.path in absent:
            continue
        progress(entry.path)
        yield from _store_problems(folder / entry.path, entry)


def _store_problems(path: Path, entry: StoreEntry) -> Iterator[str]:
    try:
        content = read_content(path)
        read_device(path)
    except VcmbenchError as error:
        yield str(error)
        return
    if (digest := content.digest()) != entry.digest:
        yield f"{path}: found content digest {digest}, expected {entry.digest}"


def _release_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path != folder / MANIFEST
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _store_entries(folder: Path, kind: str) -> dict[str, StoreEntry]:
    return {
        path.name.removesuffix(".zarr.zip"): StoreEntry(
            path=path.relative_to(folder).as_posix(), digest=read_content(path).digest()
        )
        for path in sorted((folder / kind).glob("*.zarr.zip"))
    }


def _file_entry(path: Path) -> FileEntry:
    with path.open("rb") as handle:
        return FileEntry(
            size=path.stat().st_size, sha256=hashlib.file_digest(handle, "sha256").hexdigest()
        )


def _read_json(model: type[ModelT], path: Path) -> ModelT:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise VcmbenchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise VcmbenchError(f"{path}: {where}: {first['msg']}") from error


def _write_json(path: Path, model: BaseModel) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(model.model_dump(mode="json"), indent=2) + "\n")
