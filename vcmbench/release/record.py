"""What a downloaded release remembers: where it came from and which devices were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vcmbench.errors import VcmbenchError
from vcmbench.jsonfile import Document, read_json, write_json
from vcmbench.release.manifest import StoreEntry
from vcmbench.resources import cache_folder

DOWNLOAD = ".download"
"""Folder within a downloaded release for the record, the lock and unfinished files."""


class Download(Document):
    """``.download/record.json``."""

    schema_version: Literal[1] = 1
    label: str
    """Name and version: ``"vcm-nano@1.0.0"``."""
    repo: str
    revision: str
    """Commit of the repository."""
    devices: tuple[str, ...] = ()
    """Devices asked for so far; the others are absent on purpose."""


def release_folder(label: str) -> Path:
    """Folder in the cache of a release, e.g. ``"vcm-nano@1.0.0"``."""
    return cache_folder() / "releases" / label


def read_download(folder: Path) -> Download | None:
    """Read the record of a downloaded release; none of another folder."""
    path = folder / DOWNLOAD / "record.json"
    return read_json(Download, path) if path.is_file() else None


def write_download(folder: Path, download: Download) -> None:
    """Write the record of a downloaded release."""
    write_json(folder / DOWNLOAD / "record.json", download)


def left_out(folder: Path, devices: Mapping[str, StoreEntry]) -> set[str]:
    """Devices of a release that its download, if it is one, did not include."""
    download = read_download(folder)
    if download is None:
        return set()
    others = set(devices) - set(download.devices)
    return {name for name in others if not (folder / devices[name].path).exists()}


def not_downloaded(folder: Path, label: str, device_ids: list[str]) -> VcmbenchError:
    """Say how devices that a download left out are fetched."""
    elsewhere = "" if folder == release_folder(label) else f" --dir {folder}"
    command = f"vcmbench data download {label} --devices {','.join(device_ids)}{elsewhere}"
    return VcmbenchError(f"{folder}: {', '.join(device_ids)} not downloaded; fetch with: {command}")
