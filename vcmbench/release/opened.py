"""An opened release: its devices, leads and splits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vcmbench.device import Device
from vcmbench.errors import bad_input, unknown_name
from vcmbench.release.manifest import MANIFEST, Manifest, StoreEntry, read_manifest
from vcmbench.release.record import left_out, not_downloaded
from vcmbench.release.splits import DeviceSplit, PartitionSplit, Split, read_split
from vcmbench.store.device import read_device

DEFAULT_SPLIT = "device"

_log = logging.getLogger(__name__)


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
        release = cls(folder, read_manifest(folder / MANIFEST))
        _log.info("%s: %s", release.label, folder)
        return release

    @property
    def label(self) -> str:
        """Name and version: ``"vcm-demo@1.0.0"``."""
        return self.manifest.label

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
        split = read_split(path)
        if split.name != name:
            raise bad_input(path, "name", found=split.name, expected=name)
        if split.release.digest != self.manifest.digest:
            raise bad_input(
                path,
                "release: digest",
                found=split.release.digest,
                expected=f"{self.manifest.digest} of {self.label}",
            )
        if isinstance(split, PartitionSplit) and split.guard_ang < self.manifest.support_ang:
            raise bad_input(
                path,
                "guard_ang",
                found=split.guard_ang,
                expected=f"at least the support, {self.manifest.support_ang:g} Å",
            )
        named = {split.device} if isinstance(split, PartitionSplit) else set(split.part_of)
        if unknown := sorted(named - set(self.manifest.devices)):
            raise bad_input(path, "devices", found=unknown, expected="devices of the release")
        return split

    def partition(self, name: str = "partition") -> PartitionSplit:
        """Load a split of one device along x; see `vcmbench.partition` for what it supervises."""
        split = self.split(name)
        if not isinstance(split, PartitionSplit):
            raise bad_input(
                f"split {name!r} of {self.label}",
                "kind",
                found="a split of whole devices",
                expected="a partition of one device",
            )
        return split

    @cached_property
    def device_parts(self) -> DeviceSplit:
        """The device split that every release has."""
        return self._device_split(DEFAULT_SPLIT)

    def device_ids(self, selection: str) -> tuple[str, ...]:
        """Device ids of ``"PART"`` of the device split or of ``"SPLIT:PART"``."""
        split, _, part = selection.rpartition(":")
        return self._device_split(split or DEFAULT_SPLIT).part(part)

    def _device_split(self, name: str) -> DeviceSplit:
        split = self.split(name)
        if isinstance(split, PartitionSplit):
            raise bad_input(
                f"split {name!r} of {self.label}",
                "kind",
                found=f"a partition of device {split.device!r}",
                expected="a split of whole devices",
            )
        return split
