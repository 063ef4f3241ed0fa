"""Make a release of a folder of stores: measure, describe, check, and write all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from vcmbench.blocks import BlockPattern
from vcmbench.build.quality import Quality
from vcmbench.device import Device
from vcmbench.documents import first_problem, json_bytes, read_json
from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.facts import DeviceFacts, device_facts, device_quality
from vcmbench.production_record import RECORDS, ProductionRecord
from vcmbench.release.card import CARD, CardData, fill_card
from vcmbench.release.croissant import CROISSANT, croissant_bytes
from vcmbench.release.families import check_families, families
from vcmbench.release.index import INDEX, columns, index_bytes, rows_of
from vcmbench.release.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    ReleaseInfo,
    StoreEntry,
    bytes_entry,
    file_entry,
    release_files,
)
from vcmbench.release.opened import DEFAULT_SPLIT, Release
from vcmbench.release.recipe import ReleaseRecipe
from vcmbench.release.splits import (
    DeviceParts,
    DeviceSplit,
    PartitionSplit,
    RangeParts,
    ReleaseRef,
    Split,
)
from vcmbench.store.content import atomic_file, read_content
from vcmbench.store.device import decode
from vcmbench.structure import Structure, transport_period
from vcmbench.withheld import WithheldHamiltonian

STORE = ".zarr.zip"

Progress = Callable[[str], None]


@dataclass
class _Measured:
    """What is known of the stores of a folder, one by one, without their matrices."""

    devices: dict[str, StoreEntry] = field(default_factory=dict)
    leads: dict[str, StoreEntry] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    facts: dict[str, DeviceFacts] = field(default_factory=dict)
    structures: dict[str, Structure] = field(default_factory=dict)
    quality: dict[str, Quality] = field(default_factory=dict)
    floors: dict[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    lead_sites: dict[str, int] = field(default_factory=dict)
    records: dict[str, ProductionRecord] = field(default_factory=dict)


def make_release(
    folder: Path, recipe: ReleaseRecipe, progress: Progress = lambda _name: None
) -> Release:
    """Complete a folder of stores to a release: card, index, Croissant, splits, manifest.

    All files appear together, the manifest last; if anything is wrong, none does.

    Parameters
    ----------
    folder : Path
        Folder with ``devices/``, ``leads/`` and, for what a recipe computed, ``records/``.
    recipe : ReleaseRecipe
        Name, version, card and parts.
    progress : callable
        Called with the name of each store before it is read.

    Returns
    -------
    Release

    Raises
    ------
    VcmbenchError
        If a store or the card cannot be read, a store does not hold the whole support, a lead is
        missing, siblings are in different parts, guards are too narrow, or the folder holds
        files that are not of this release.
    """
    try:
        card = recipe.card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VcmbenchError(f"{recipe.card}: cannot be read ({error})") from error
    return complete(
        folder,
        info=recipe,
        support_ang=recipe.support_ang,
        device_parts=recipe.devices,
        partitions=recipe.partitions,
        card=(card, str(recipe.card)),
        progress=progress,
    )


def complete(
    folder: Path,
    *,
    info: ReleaseInfo,
    support_ang: float,
    device_parts: DeviceParts,
    partitions: Mapping[str, RangeParts],
    card: tuple[str, str],
    progress: Progress = lambda _name: None,
) -> Release:
    """Write everything in a release folder that follows from its stores.

    Parameters
    ----------
    folder : Path
        Folder with ``devices/`` and ``leads/``.
    info : ReleaseInfo
        Name, version, description, …
    support_ang : float
        Support of the stored blocks, Å.
    device_parts : DeviceParts
        The device split.
    partitions : mapping of str to RangeParts
        Partition splits by name.
    card : tuple of str
        Text of the dataset card and where it comes from.
    progress : callable
        Called with the name of each store before it is read.

    Returns
    -------
    Release
    """
    measured = _measure(folder, support_ang, progress)
    _read_records(folder, measured)
    family = families(measured.structures)
    _check_parts(device_parts, partitions, measured, family)
    manifest = Manifest(
        **{name: getattr(info, name) for name in ReleaseInfo.model_fields},
        schema_version=1,
        support_ang=support_ang,
        devices=measured.devices,
        leads=measured.leads,
        files=measured.files,
    )
    splits = _splits(manifest, device_parts, partitions, measured)
    rows = rows_of(measured.facts, family, device_parts.part_of, manifest)
    files = {f"splits/{split.name}.json": json_bytes(split) for split in splits}
    files[INDEX] = index_bytes(rows)
    entries = measured.files | {name: bytes_entry(content) for name, content in files.items()}
    files[CROISSANT] = croissant_bytes(info, entries, columns(rows))
    data = CardData(
        info,
        rows,
        measured.lead_sites,
        measured.quality,
        measured.floors,
        splits,
        measured.records,
    )
    files[CARD] = fill_card(card[0], data, card[1]).encode()
    _refuse_foreign_files(folder, {*files, *measured.files})
    entries |= {name: bytes_entry(files[name]) for name in (CROISSANT, CARD)}
    manifest = manifest.model_copy(update={"files": dict(sorted(entries.items()))}).sealed()
    _write_all(folder, {MANIFEST: json_bytes(manifest), **files})
    return Release(folder, manifest)


def _measure(folder: Path, support_ang: float, progress: Progress) -> _Measured:
    measured = _Measured()
    for kind, entries in (("devices", measured.devices), ("leads", measured.leads)):
        for path in sorted((folder / kind).glob(f"*{STORE}")):
            name = path.relative_to(folder).as_posix()
            progress(name)
            content = read_content(path)
            device = decode(content)
            if device.id != path.name.removesuffix(STORE):
                raise bad_input(path, "id", found=device.id, expected="the name of the store")
            complete_digest = None
            if isinstance(device.hamiltonian, WithheldHamiltonian):
                complete_digest = device.hamiltonian.complete_digest
            entries[device.id] = StoreEntry(
                path=name, digest=content.digest(), complete_digest=complete_digest
            )
            measured.files[name] = file_entry(path)
            _check_support(device, support_ang, path)
            if kind == "devices":
                _measure_device(measured, device)
            else:
                measured.lead_sites[device.id] = device.structure.n_sites
    if not measured.devices:
        raise bad_input(folder, "devices", found="none", expected=f"stores devices/ID{STORE}")
    for facts in measured.facts.values():
        if facts.lead is not None and facts.lead not in measured.leads:
            raise bad_input(
                folder / measured.devices[facts.id].path,
                "lead",
                found=facts.lead,
                expected=f"one of leads/: {', '.join(measured.leads) or 'none'}",
            )
    return measured


def _read_records(folder: Path, measured: _Measured) -> None:
    """Read how the stores came about, where it is recorded; each record must be of its store."""
    stores = measured.devices | measured.leads
    for path in sorted((folder / RECORDS).glob("*.json")):
        record = read_json(ProductionRecord, path)
        if path.stem != record.id or record.id not in stores:
            raise bad_input(path, "id", found=record.id, expected="that of a store, as its name")
        if record.content_digest != stores[record.id].digest:
            raise bad_input(
                path,
                "content_digest",
                found=record.content_digest,
                expected=f"{stores[record.id].digest} of {stores[record.id].path}",
            )
        measured.records[record.id] = record
        measured.files[f"{RECORDS}/{path.name}"] = file_entry(path)


def _measure_device(measured: _Measured, device: Device) -> None:
    quality = device_quality(device)
    measured.facts[device.id] = device_facts(device, quality)
    measured.structures[device.id] = device.structure
    if quality is not None:
        measured.quality[device.id] = quality
    if device.transport is not None:
        measured.floors[device.id] = device.transport.floors


def _check_support(device: Device, support_ang: float, path: Path) -> None:
    """Raise unless the store's blocks are exactly the support: it fixes the denominators."""
    wanted = BlockPattern.from_structure(device.structure, device.basis, support_ang)
    if not (
        np.array_equal(wanted.pair, device.pattern.pair)
        and np.array_equal(wanted.shift, device.pattern.shift)
    ):
        raise bad_input(
            path,
            "blocks",
            found=f"{device.pattern.n_blocks} blocks",
            expected=f"the {wanted.n_blocks} pairs of sites closer than {support_ang:g} Å",
        )


def _check_parts(
    parts: DeviceParts,
    partitions: Mapping[str, RangeParts],
    measured: _Measured,
    family: Mapping[str, str],
) -> None:
    source = f"split {DEFAULT_SPLIT!r}"
    for part, ids in parts.parts.items():
        if unknown := sorted(set(ids) - set(measured.devices)):
            raise bad_input(
                source, f"parts: {part}", found=unknown, expected=sorted(measured.devices)
            )
    used = {*parts.part_of, *(cut.device for cut in partitions.values())}
    if unused := sorted(set(measured.devices) - used):
        raise bad_input(source, "parts", found=f"none with {unused}", expected="every device")
    check_families(family, parts.part_of, source)


def _splits(
    manifest: Manifest,
    device_parts: DeviceParts,
    partitions: Mapping[str, RangeParts],
    measured: _Measured,
) -> list[Split]:
    release = ReleaseRef(name=manifest.name, version=manifest.version, digest=manifest.digest)
    splits: list[Split] = [
        DeviceSplit(
            schema_version=1,
            kind="devices",
            name=DEFAULT_SPLIT,
            release=release,
            version=device_parts.version,
            parts=device_parts.parts,
        )
    ]
    for name, cut in partitions.items():
        source = f"split {name!r}"
        if cut.device not in measured.structures:
            raise bad_input(
                source, "device", found=cut.device, expected=sorted(measured.structures)
            )
        try:
            split = PartitionSplit(
                schema_version=1,
                kind="partition",
                name=name,
                release=release,
                version=cut.version,
                device=cut.device,
                parts=cut.parts,
                period_ang=transport_period(measured.structures[cut.device], cut.device),
                guard_ang=manifest.support_ang,
            )
        except ValidationError as error:
            raise VcmbenchError(f"{source}: {first_problem(error)}") from error
        splits.append(split)
    return splits


def _refuse_foreign_files(folder: Path, own: set[str]) -> None:
    if foreign := sorted(set(release_files(folder)) - own):
        raise bad_input(
            folder, "files", found=", ".join(foreign), expected="only stores and what is generated"
        )


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files that appear together: all are complete on disk before the first is renamed.

    The last to appear is the first of `files`: the manifest, which makes the folder a release.
    """
    with ExitStack() as stack:
        for name, content in files.items():
            stack.enter_context(atomic_file(folder / name)).write_bytes(content)
