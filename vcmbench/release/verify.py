"""Compare a release with its manifest: every changed bit is found and its file named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from vcmbench.errors import VcmbenchError
from vcmbench.release.manifest import StoreEntry, file_entry, release_files
from vcmbench.release.opened import Release
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
        One line per problem; empty if all is as released.
    """
    return list(_problems(release, progress))


def _problems(release: Release, progress: Callable[[str], None]) -> Iterator[str]:
    folder, manifest = release.folder, release.manifest
    present = release_files(folder)
    for name in sorted(set(present) - set(manifest.files)):
        yield f"{folder / name}: not in the manifest"
    for name, expected in manifest.files.items():
        progress(name)
        if name not in present:
            yield f"{folder / name}: missing"
        elif (found := file_entry(folder / name)) != expected:
            yield (
                f"{folder / name}: found {found.size} bytes with sha256 {found.sha256}, "
                f"expected {expected.size} bytes with sha256 {expected.sha256}"
            )
    for entry in (*manifest.devices.values(), *manifest.leads.values()):
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
