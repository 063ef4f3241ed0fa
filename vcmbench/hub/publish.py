"""Publication of a release: one commit, one tag, and the pin that the registry then holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.hub.client import hub_client, hub_errors
from vcmbench.hub.registry import pinned_manifest, version_tag
from vcmbench.hub.transfer import file_entry
from vcmbench.release import MANIFEST, Release, verify_release


@dataclass(frozen=True)
class Publication:
    """What the registry is told.

    Attributes
    ----------
    name, version : str
        What it is.
    manifest_sha256 : str
        Checksum of its manifest.
    commit : str or None
        Commit that holds it; none if it was only checked whether it could be published.
    """

    name: str
    version: str
    manifest_sha256: str
    commit: str | None

    @property
    def label(self) -> str:
        """Name and version: ``"vcm-nano@1.0.0"``."""
        return f"{self.name}@{self.version}"


def publish(
    folder: Path,
    repo: str,
    *,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _remark: None,
) -> Publication:
    """Upload a release to a dataset repository, which is created if there is none.

    Publishing what is published already changes nothing, so an interrupted run can be repeated.

    Parameters
    ----------
    folder : Path
        Release folder; nothing but the files of its manifest is uploaded.
    repo : str
        Dataset repository, ``"namespace/name"``.
    dry_run : bool
        Check everything, upload nothing.
    progress : callable
        Called with what is being done.

    Returns
    -------
    Publication

    Raises
    ------
    VcmbenchError
        If the release is damaged or incomplete, if this version is published or pinned with other
        content, or if the Hub refuses.
    """
    hub_client()
    if "/" not in repo:
        raise bad_input("--repo", "value", found=repo, expected="NAMESPACE/NAME")
    release = _whole_release(folder, progress)
    label, tag = release.label, version_tag(release.manifest.version)
    checksum = file_entry(folder / MANIFEST).sha256
    pinned = pinned_manifest(release.manifest.name, release.manifest.version)
    _refuse_other(f"registry: {label}", pinned, checksum)
    with hub_errors(f"{label} to {repo}"):
        refs = _refs(repo)
        commit = refs.get(tag)
        if commit:
            _refuse_other(f"{repo} at {tag}", _manifest_sha256(repo, commit), checksum)
            progress(f"{repo} holds {label} already")
        elif not dry_run:
            progress(f"uploading to {repo}")
            commit = _upload(release, repo, parent=refs.get("main"))
            _api().create_tag(repo, repo_type="dataset", tag=tag, revision=commit)
    return Publication(release.manifest.name, release.manifest.version, checksum, commit)


def _api() -> Any:
    return hub_client().HfApi()


def _whole_release(folder: Path, progress: Callable[[str], None]) -> Release:
    """Open a release of which every byte is there and as its manifest says."""
    release = Release.open(folder)
    problems = [f"{name}: left out of this download" for name in sorted(release.left_out)]
    progress(f"verifying {folder}")
    problems += verify_release(release)
    if problems:
        raise VcmbenchError("\n".join(problems))
    return release


def _refuse_other(where: str, published: str | None, ours: str) -> None:
    if published not in (None, ours):
        raise bad_input(
            where,
            f"sha256 of {MANIFEST}",
            found=published,
            expected=f"{ours}: a published version never changes, release another one",
        )


def _refs(repo: str) -> dict[str, str]:
    """Look up the commits of the repository's branches and tags; none if it does not exist."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        refs = _api().list_repo_refs(repo, repo_type="dataset")
    except RepositoryNotFoundError:
        return {}
    return {ref.name: ref.target_commit for ref in (*refs.branches, *refs.tags)}


def _manifest_sha256(repo: str, commit: str) -> str:
    with TemporaryDirectory() as folder:
        path = hub_client().hf_hub_download(
            repo, MANIFEST, repo_type="dataset", revision=commit, local_dir=folder
        )
        return file_entry(Path(path)).sha256


def _upload(release: Release, repo: str, parent: str | None) -> str:
    """Commit all files of the release, and the removal of all others, at once."""
    hub, api = hub_client(), _api()
    if parent is None:
        api.create_repo(repo, repo_type="dataset")
    names = [MANIFEST, *release.manifest.files]
    existing = api.list_repo_files(repo, repo_type="dataset", revision=parent)
    old = sorted({*existing} - {*names, ".gitattributes"})
    commit: str = api.create_commit(
        repo,
        repo_type="dataset",
        operations=[
            *(hub.CommitOperationAdd(name, release.folder / name) for name in names),
            *(hub.CommitOperationDelete(name) for name in old),
        ],
        commit_message=release.label,
        parent_commit=parent,
    ).oid
    return commit
