"""Download of a release, or of some of its devices, with every byte checked.

The Hub's client fetches into a staging folder within the release; a file moves into its place only
once its size and SHA-256 are the manifest's, and the manifest moves last. So whatever stands in
place is whole, and a folder becomes a release only when all that was asked for is there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vcmbench.errors import VcmbenchError, bad_input, unknown_name
from vcmbench.hub.client import hub_client, hub_errors, is_offline
from vcmbench.hub.record import (
    DOWNLOAD,
    Download,
    not_downloaded,
    read_download,
    release_folder,
    write_download,
)
from vcmbench.hub.registry import Source, find_source, pinned_manifest, read_registry
from vcmbench.hub.transfer import Transfer, file_entry
from vcmbench.jsonfile import read_json
from vcmbench.release import MANIFEST, Manifest, Release, known_releases

Progress = Callable[[str], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Selection:
    """Which devices of a release; all of them if nothing is named.

    Attributes
    ----------
    devices : tuple of str
        Device ids.
    split : str or None
        ``"PART"`` of the device split or ``"SPLIT:PART"``.
    """

    devices: tuple[str, ...] = ()
    split: str | None = None

    def device_ids(self, release: Release) -> list[str]:
        """Ids in the order of the manifest."""
        known = release.manifest.devices
        for name in self.devices:
            if name not in known:
                raise unknown_name(f"device of {release.label}", name, known)
        if not self.devices and self.split is None:
            return list(known)
        chosen = {*self.devices, *(release.device_ids(self.split) if self.split else ())}
        return [name for name in known if name in chosen]


EVERYTHING = Selection()


def download(
    spec: str,
    selection: Selection = EVERYTHING,
    *,
    repo: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    folder: Path | None = None,
    progress: Progress = lambda _remark: None,
) -> Release:
    """Download a release from the Hub, or complete an earlier download.

    What is in place is checked, and fetched again only if it is damaged. Leads, splits, card and
    index always come along.

    Parameters
    ----------
    spec : str
        ``"vcm-nano"`` (its newest version) or ``"vcm-nano@1.0.0"``.
    selection : Selection
        Devices to download; added to those downloaded before.
    repo, revision : str, optional
        Repository and revision instead of those of the earlier download or of the registry.
    offline : bool
        Open what an earlier download left, without a network.
    folder : Path, optional
        Where to; a folder of the cache by default.
    progress : callable
        Called with a remark now and then.

    Returns
    -------
    Release

    Raises
    ------
    VcmbenchError
        If there is no such release or it cannot be fetched, if a file is not what the manifest
        says or the manifest not what the registry says (both are discarded), or if `folder` holds
        something else.
    """
    name, version = _name_and_version(spec, repo, folder)
    label = f"{name}@{version}"
    folder = folder or release_folder(label)
    if offline or is_offline():
        return _open_downloaded(folder, label, selection)
    _refuse_other_content(folder, label)
    with hub_errors(f"{label} to {folder}"), _lock(folder, progress):
        record = read_download(folder)
        if record and (folder / MANIFEST).is_file() and not (repo or revision):
            _open(folder, label)
        else:
            source = find_source(name, version, repo=repo, revision=revision)
            progress(f"downloading {label} from {source} to {folder}")
            record = _fetch_manifest(folder, source, record)
        return _fetch_files(folder, record, selection)


def open_or_download(spec: str) -> Release:
    """Open a release in the cache; download it, saying so, if it is not there.

    Raises
    ------
    VcmbenchError
        As for `download`.
    """
    name, version = _name_and_version(spec, None, None)
    label = f"{name}@{version}"
    folder = release_folder(label)
    if (folder / MANIFEST).is_file():
        return _open(folder, label)
    # Python shows a warning on standard error even where no logging is set up.
    return download(label, progress=logging.getLogger(__name__).warning)


def downloaded_releases() -> dict[str, Path]:
    """Folders of the releases in the cache, by name and version."""
    manifests = sorted(release_folder("").glob(f"*/{MANIFEST}"))
    return {path.parent.name: path.parent for path in manifests}


def _name_and_version(spec: str, repo: str | None, folder: Path | None) -> tuple[str, str]:
    name, _, version = spec.partition("@")
    if version and (repo or read_download(folder or release_folder(spec))):
        return name, version
    datasets = read_registry()
    if name in datasets:
        return name, version or datasets[name].latest
    if repo:
        raise bad_input(spec, "version", found="none", expected=f"{name}@VERSION")
    raise unknown_name("dataset", spec, {*datasets, *known_releases(), *downloaded_releases()})


def _open(folder: Path, label: str) -> Release:
    """Open a release in place; its manifest must be the one the registry pins."""
    _check_manifest(folder / MANIFEST, label, pinned_manifest(*label.split("@")))
    return Release.open(folder)


def _open_downloaded(folder: Path, label: str, selection: Selection) -> Release:
    """Open what is in place; the selection must be."""
    if not (folder / MANIFEST).is_file():
        raise VcmbenchError(
            f"{folder}: {label} is not downloaded, and this is offline mode; "
            f"with a network: vcmbench data download {label}"
        )
    release = _open(folder, label)
    entries = release.manifest.devices
    absent = [d for d in selection.device_ids(release) if not (folder / entries[d].path).exists()]
    if absent:
        raise not_downloaded(folder, label, absent)
    return release


def _refuse_other_content(folder: Path, label: str) -> None:
    record = read_download(folder)
    if record and record.label != label:
        raise bad_input(folder, "content", found=record.label, expected=label)
    if folder.is_dir() and not (folder / DOWNLOAD).is_dir() and any(folder.iterdir()):
        raise bad_input(
            folder,
            "content",
            found="files that no download left",
            expected="a new or empty folder, or an earlier download",
        )


@contextmanager
def _lock(folder: Path, progress: Progress) -> Iterator[None]:
    """Let one process at a time download to a folder; a killed one leaves no lock behind."""
    from filelock import FileLock, Timeout

    (folder / DOWNLOAD).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / DOWNLOAD / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"another process is downloading to {folder}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_manifest(folder: Path, source: Source, record: Download | None) -> Download:
    """Stage the manifest, and record where from once it is accepted."""
    transfer = Transfer(folder, source.repo, _commit(source))
    transfer.stage([MANIFEST])
    staged = transfer.staging / MANIFEST
    try:
        _accept(staged, source, folder)
    except VcmbenchError:
        staged.unlink(missing_ok=True)
        raise
    devices = record.devices if record else ()
    record = Download(
        label=source.label, repo=source.repo, revision=transfer.commit, devices=devices
    )
    write_download(folder, record)
    return record


def _commit(source: Source) -> str:
    """Commit of a revision: what is fetched in several requests must not move in between."""
    if _COMMIT.fullmatch(source.revision):
        return source.revision
    api = hub_client().HfApi()
    commit: str = api.dataset_info(source.repo, revision=source.revision).sha
    return commit


def _accept(path: Path, source: Source, folder: Path) -> None:
    """Check that a staged manifest is the pinned one, of this dataset, and safe to follow."""
    where = f"{MANIFEST} of {source}"
    if not path.is_file():
        raise VcmbenchError(f"{where}: no such file: not a release")
    _check_manifest(path, where, source.manifest_sha256)
    if (folder / MANIFEST).is_file():
        _check_manifest(path, where, file_entry(folder / MANIFEST).sha256)
    manifest = read_json(Manifest, path)
    if (label := f"{manifest.name}@{manifest.version}") != source.label:
        raise bad_input(where, "name and version", found=label, expected=source.label)
    for name in manifest.files:
        # ".." would lead out of the folder, and ".download" is ours.
        if any(part.startswith(".") or not part for part in name.split("/")):
            raise bad_input(where, "files", found=name, expected="no hidden or absolute paths")
    stores = {entry.path for entry in (*manifest.devices.values(), *manifest.leads.values())}
    if unlisted := sorted(stores - set(manifest.files)):
        raise bad_input(where, "files", found=f"no {unlisted[0]}", expected="every store")


def _check_manifest(path: Path, where: str, expected: str | None) -> None:
    found = file_entry(path).sha256
    if expected and found != expected:
        raise bad_input(
            where, "sha256", found=found, expected=f"{expected}: a published version never changes"
        )


def _fetch_files(folder: Path, record: Download, selection: Selection) -> Release:
    """Bring what is selected into place, what all devices share first: it holds the splits."""
    transfer = Transfer(folder, record.repo, record.revision)
    staged, in_place = transfer.staging / MANIFEST, folder / MANIFEST
    manifest = read_json(Manifest, in_place if in_place.is_file() else staged)
    files, devices = manifest.files, manifest.devices
    stores = {entry.path for entry in devices.values()}
    transfer.bring({name: file for name, file in files.items() if name not in stores})
    ids = selection.device_ids(Release(folder, manifest))
    transfer.bring({devices[name].path: files[devices[name].path] for name in ids})
    chosen = {*record.devices, *ids}
    ordered = tuple(name for name in devices if name in chosen)
    write_download(folder, record.model_copy(update={"devices": ordered}))
    if not in_place.is_file():
        staged.replace(in_place)
    transfer.clear()
    return Release(folder, manifest)
