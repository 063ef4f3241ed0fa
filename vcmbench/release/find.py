"""Find a release by its folder or its name."""

from __future__ import annotations

from pathlib import Path

from vcmbench.errors import bad_input, unknown_name
from vcmbench.release.manifest import MANIFEST
from vcmbench.release.opened import Release
from vcmbench.resources import resource_folders


def find_release(spec: str) -> Release:
    """Find a release by folder, or by name among those that travel with the code.

    Parameters
    ----------
    spec : str
        A release folder, ``"vcm-demo"`` or ``"vcm-demo@1.0.0"``.

    Raises
    ------
    VcmbenchError
        If there is none, or another version than asked for.
    """
    if (Path(spec) / MANIFEST).is_file():
        return Release.open(Path(spec))
    if Path(spec).is_dir():
        raise bad_input(spec, MANIFEST, found="no such file", expected="one in a release folder")
    name, _, version = spec.partition("@")
    known = known_releases()
    if name not in known:
        raise unknown_name("dataset", name, known)
    release = Release.open(known[name])
    if version and version != release.manifest.version:
        raise bad_input(spec, "version", found=version, expected=release.manifest.version)
    return release


def known_releases() -> dict[str, Path]:
    """Releases that travel with the code, by name."""
    folders = resource_folders("releases")
    return {name: folder for name, folder in folders.items() if (folder / MANIFEST).is_file()}
