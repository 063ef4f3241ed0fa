"""A hidden test set: the public and the private half of a release, and how they are joined."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, NamedTuple

from vcmbench.documents import Document, read_json, write_json
from vcmbench.errors import VcmbenchError, bad_input, unknown_name
from vcmbench.release.card import CARD
from vcmbench.release.families import families
from vcmbench.release.make import complete
from vcmbench.release.manifest import StorePath
from vcmbench.release.opened import DEFAULT_SPLIT, Release
from vcmbench.release.splits import PartitionSplit, ReleaseRef
from vcmbench.release.verify import require_intact
from vcmbench.store.content import read_content, write_content
from vcmbench.store.device import write_device
from vcmbench.store.halves import join_halves, split_device

PRIVATE = "private.json"

Progress = Callable[[str], None]


class PrivateEntry(Document):
    """The private half of one device."""

    path: StorePath
    digest: str
    """SHA-256 of its content."""
    public_digest: str
    """SHA-256 of the public half's content."""
    complete_digest: str
    """SHA-256 of the content that both make."""


class PrivateManifest(Document):
    """``private.json``: what was withheld from which release."""

    schema_version: Literal[1]
    release: ReleaseRef
    devices: dict[str, PrivateEntry]


class HiddenTest(NamedTuple):
    """Both halves."""

    public: Release
    private: PrivateManifest


def hide_devices(
    release: Release,
    device_ids: Collection[str],
    public: Path,
    private: Path,
    progress: Progress = lambda _name: None,
) -> HiddenTest:
    """Withhold the Hamiltonians of some devices of a release.

    The public half is a release with the same name, version and digest: sites, basis, overlap
    and contacts of the devices are in it, their Hamiltonian, transmission, Fermi level, SCF log
    and input text are not. Prose of the card is copied: it must not tell them.

    Parameters
    ----------
    release : Release
        Complete and intact; it is left as it is.
    device_ids : collection of str
        Devices to withhold.
    public, private : Path
        Folders to write; they must not exist.
    progress : callable
        Called with the name of what is worked on.

    Returns
    -------
    HiddenTest

    Raises
    ------
    VcmbenchError
        If a device is unknown, withheld already or serves training, a sibling would stay public,
        the release is damaged, or a folder exists.
    """
    _check_request(release, device_ids)
    require_intact(release, progress)
    _require_whole_families(release, device_ids)
    with _new_folder(public) as open_half, _new_folder(private) as secret_half:
        _copy_stores(release, open_half)
        entries = {}
        for device_id in sorted(device_ids):
            progress(device_id)
            entry = release.manifest.devices[device_id]
            halves = split_device(release.device(device_id))
            if halves.complete_digest != entry.digest:
                raise bad_input(
                    release.folder / entry.path,
                    "content digest",
                    found=halves.complete_digest,
                    expected=f"{entry.digest}: the store holds more than a device",
                )
            write_content(open_half / entry.path, halves.public)
            write_content(secret_half / entry.path, halves.private)
            entries[device_id] = PrivateEntry(
                path=entry.path,
                digest=halves.private.digest(),
                public_digest=halves.public.digest(),
                complete_digest=entry.digest,
            )
        made = _complete_like(release, open_half, progress)
        manifest = PrivateManifest(
            schema_version=1,
            release=ReleaseRef(
                name=made.manifest.name,
                version=made.manifest.version,
                digest=made.manifest.digest,
            ),
            devices=entries,
        )
        write_json(secret_half / PRIVATE, manifest)
    return HiddenTest(Release.open(public), manifest)


def join_release(
    public: Release, private: Path, output: Path, progress: Progress = lambda _name: None
) -> Release:
    """Put the halves of a release together again.

    Parameters
    ----------
    public : Release
        The public half.
    private : Path
        Folder of the private half.
    output : Path
        Folder to write; it must not exist.
    progress : callable
        Called with the name of what is worked on.

    Returns
    -------
    Release
        Every device has the content digest it had before.

    Raises
    ------
    VcmbenchError
        If the halves do not belong together, or either was changed.
    """
    path = private / PRIVATE
    manifest = read_json(PrivateManifest, path)
    if manifest.release.digest != public.manifest.digest:
        raise bad_input(
            path,
            "release: digest",
            found=f"{manifest.release.digest} ({manifest.release.name})",
            expected=f"{public.manifest.digest} of {public.label}",
        )
    require_intact(public, progress)
    withheld = {n for n, entry in public.manifest.devices.items() if entry.complete_digest}
    if withheld != set(manifest.devices):
        raise bad_input(path, "devices", found=sorted(manifest.devices), expected=sorted(withheld))
    with _new_folder(output) as folder:
        _copy_stores(public, folder)
        for device_id, entry in manifest.devices.items():
            progress(device_id)
            stored = public.manifest.devices[device_id]
            secret = read_content(private / entry.path)
            if (digest := secret.digest()) != entry.digest:
                raise bad_input(
                    private / entry.path, "content digest", found=digest, expected=entry.digest
                )
            device = join_halves(read_content(public.folder / stored.path), secret)
            found = write_device(folder / stored.path, device)
            if device.id != device_id or found != stored.complete_digest:
                raise bad_input(
                    private / entry.path,
                    "device",
                    found=f"{device.id} with content digest {found}",
                    expected=f"{device_id} with {stored.complete_digest}",
                )
        _complete_like(public, folder, progress)
    return Release.open(output)


def _check_request(release: Release, device_ids: Collection[str]) -> None:
    if not device_ids:
        raise VcmbenchError(f"{release.label}: found no device to withhold, expected one or more")
    for device_id in device_ids:
        if device_id not in release.manifest.devices:
            raise unknown_name(f"device of {release.label}", device_id, release.manifest.devices)
        part = release.device_parts.part_of.get(device_id)
        if part in ("train", "validation"):
            raise bad_input(
                release.label, device_id, found=f"part {part!r}", expected="a test part to withhold"
            )
    for name in release.split_names:
        split = release.split(name)
        if isinstance(split, PartitionSplit) and split.device in device_ids:
            raise bad_input(
                release.label,
                split.device,
                found=f"training labels of split {name!r}",
                expected="a test part to withhold",
            )


def _require_whole_families(release: Release, device_ids: Collection[str]) -> None:
    """Raise where a sibling's Hamiltonian would stay public: it is most of the answer."""
    structures = {name: release.device(name).structure for name in release.manifest.devices}
    family = families(structures)
    for device_id in device_ids:
        siblings = {name for name in family if family[name] == family[device_id]}
        if public := sorted(siblings - set(device_ids)):
            raise bad_input(
                release.label,
                device_id,
                found=f"siblings that stay public: {', '.join(public)}",
                expected="whole families to withhold",
            )


def _copy_stores(release: Release, folder: Path) -> None:
    for entry in (*release.manifest.devices.values(), *release.manifest.leads.values()):
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release.folder / entry.path, target)


def _complete_like(release: Release, folder: Path, progress: Progress) -> Release:
    """Write what follows from the stores of `folder`, with the prose and parts of `release`."""
    splits = {name: release.split(name) for name in release.split_names}
    card = release.folder / CARD
    return complete(
        folder,
        info=release.manifest,
        support_ang=release.manifest.support_ang,
        device_parts=release.device_parts,
        partitions={
            name: split
            for name, split in splits.items()
            if name != DEFAULT_SPLIT and isinstance(split, PartitionSplit)
        },
        card=(card.read_text(encoding="utf-8"), str(card)),
        progress=progress,
    )


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` that becomes `path` only if the block succeeds."""
    if path.exists():
        raise bad_input(path, "folder", found="one that exists", expected="a new one")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
