"""Compare a release with its manifest: every changed bit is found and its file named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from vcmbench.errors import VcmbenchError
from vcmbench.release.manifest import StoreEntry, file_entry, release_files
from vcmbench.release.opened import Release
from vcmbench.release.record import not_downloaded
from vcmbench.store.content import read_content
from vcmbench.store.device import decode


def verify_release(
    release: Release, progress: Callable[[str], None] = lambda _name: None
) -> list[str]:
    """Compare every file and device with the manifest (which checked itself when it was read).

    Parameters
    ----------
    release : Release
        What to verify.
    progress : callable
        Called with the name of each file before it is read.

    Returns
    -------
    list of str
        One line per problem; empty if all is as released. Devices that a partial download left
        out are none.
    """
    return list(_problems(release, progress))


def require_intact(release: Release, progress: Callable[[str], None] = lambda _name: None) -> None:
    """Raise unless a release is whole, with no device left out, and as its manifest says."""
    if left_out := sorted(release.left_out):
        raise not_downloaded(release.folder, release.label, left_out)
    if problems := verify_release(release, progress):
        raise VcmbenchError("\n".join(problems))


def _problems(release: Release, progress: Callable[[str], None]) -> Iterator[str]:
    folder, manifest = release.folder, release.manifest
    present = set(release_files(folder))
    absent = {manifest.devices[name].path for name in release.left_out}
    for name in sorted(present - set(manifest.files)):
        yield f"{folder / name}: not in the manifest"
    for name, expected in manifest.files.items():
        if name in absent:
            continue
        progress(name)
        if name not in present:
            yield f"{folder / name}: missing"
        elif (found := file_entry(folder / name)) != expected:
            yield (
                f"{folder / name}: found {found.size} bytes with sha256 {found.sha256}, "
                f"expected {expected.size} bytes with sha256 {expected.sha256}"
            )
    for entry in (*manifest.devices.values(), *manifest.leads.values()):
        if entry.path in absent:
            continue
        progress(entry.path)
        yield from _store_problems(folder / entry.path, entry)
    for name in release.split_names:
        try:
            release.split(name)
        except VcmbenchError as error:
            yield str(error)


def _store_problems(path: Path, entry: StoreEntry) -> Iterator[str]:
    try:
        content = read_content(path)
        decode(content)
    except VcmbenchError as error:
        yield str(error)
        return
    if (digest := content.digest()) != entry.digest:
        yield f"{path}: found content digest {digest}, expected {entry.digest}"
