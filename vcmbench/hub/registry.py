"""Which datasets the Hub holds: repository, pinned commit and manifest checksum of each version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import RootModel

from vcmbench.errors import bad_input, unknown_name
from vcmbench.jsonfile import Document, read_json

REGISTRY_VARIABLE = "VCMBENCH_REGISTRY"
"""Environment variable with a registry file whose datasets are added to, or replace, ours."""

_PACKAGED = Path(__file__).with_name("datasets.json")


class Pin(Document):
    """One version; nothing of it changes once published."""

    revision: str | None = None
    """Commit of the repository; none until published."""
    manifest_sha256: str | None = None
    """SHA-256 of ``manifest.json``, which holds those of all other files."""


class Dataset(Document):
    """One dataset."""

    repo: str
    """Dataset repository, ``"namespace/name"``."""
    versions: dict[str, Pin]
    """Pins by version, oldest first."""

    @property
    def latest(self) -> str:
        """Newest published version; the newest at all if none is published."""
        published = [version for version, pin in self.versions.items() if pin.revision]
        return (published or list(self.versions))[-1]


class Registry(RootModel[dict[str, Dataset]]):
    """``datasets.json``: datasets by name."""


@dataclass(frozen=True)
class Source:
    """Where one version of a dataset is.

    Attributes
    ----------
    name, version : str
        What is asked for.
    repo : str
        Dataset repository.
    revision : str
        Commit, tag or branch.
    manifest_sha256 : str or None
        What its manifest must be, if that is known.
    """

    name: str
    version: str
    repo: str
    revision: str
    manifest_sha256: str | None

    @property
    def label(self) -> str:
        """Name and version: ``"vcm-nano@1.0.0"``."""
        return f"{self.name}@{self.version}"

    def __str__(self) -> str:
        return f"{self.repo} at {self.revision}"


def read_registry() -> Mapping[str, Dataset]:
    """Datasets by name: ours, and those of the file that ``VCMBENCH_REGISTRY`` names."""
    datasets = dict(read_json(Registry, _PACKAGED).root)
    if own := os.environ.get(REGISTRY_VARIABLE):
        datasets.update(read_json(Registry, Path(own)).root)
    return datasets


def published_sources() -> list[Source]:
    """Every version on the Hub that the registry knows."""
    return [
        find_source(name, version)
        for name, dataset in read_registry().items()
        for version, pin in dataset.versions.items()
        if pin.revision
    ]


def pinned_manifest(name: str, version: str) -> str | None:
    """SHA-256 that the manifest of a version must have, if the registry knows it."""
    dataset = read_registry().get(name)
    pin = dataset.versions.get(version) if dataset else None
    return pin.manifest_sha256 if pin else None


def version_tag(version: str) -> str:
    """Tag of a version in its repository."""
    return f"v{version}"


def find_source(
    name: str, version: str, *, repo: str | None = None, revision: str | None = None
) -> Source:
    """Find a version of a dataset on the Hub.

    Parameters
    ----------
    name, version : str
        What is asked for.
    repo : str, optional
        Repository instead of the registry's; the registry's manifest checksum stays binding.
    revision : str, optional
        Revision instead of the pinned one; with another repository its tag of the version.

    Raises
    ------
    VcmbenchError
        If the registry lacks it and no repository is given, or it is not published yet.
    """
    datasets = read_registry()
    if name not in datasets and repo is None:
        raise unknown_name("dataset", name, datasets)
    dataset = datasets.get(name) or Dataset(repo=repo or "", versions={})
    if version not in dataset.versions and not (repo or revision):
        raise unknown_name(f"version of {name}", version, dataset.versions)
    pin = dataset.versions.get(version, Pin())
    revision = revision or (version_tag(version) if repo else pin.revision)
    if revision is None:
        raise bad_input(
            f"{name}@{version}",
            f"revision in {dataset.repo}",
            found="none (not published yet)",
            expected="a published version, --repo or --revision",
        )
    return Source(name, version, repo or dataset.repo, revision, pin.manifest_sha256)
