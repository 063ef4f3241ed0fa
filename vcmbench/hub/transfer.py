"""Files of one commit on their way into a release: staged, checked, moved into place."""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from vcmbench.errors import VcmbenchError
from vcmbench.hub.client import hub_client
from vcmbench.hub.record import DOWNLOAD
from vcmbench.release import FileEntry


@dataclass(frozen=True)
class Transfer:
    """From one commit of a dataset repository to one release folder.

    Attributes
    ----------
    folder : Path
        Release folder.
    repo, commit : str
        Where the files come from.
    """

    folder: Path
    repo: str
    commit: str

    @property
    def staging(self) -> Path:
        """Folder that the Hub's client writes to; kept until the download is complete."""
        return self.folder / DOWNLOAD / "files"

    def stage(self, names: Collection[str]) -> None:
        """Fetch files to the staging folder, several at a time; those already there are kept."""
        # The client leaves behind what it was writing when it was killed, and never reads it again.
        for abandoned in self.staging.rglob("*.incomplete"):
            abandoned.unlink()
        hub_client().snapshot_download(
            self.repo,
            repo_type="dataset",
            revision=self.commit,
            local_dir=self.staging,
            allow_patterns=[glob.escape(name) for name in names],
        )

    def bring(self, files: Mapping[str, FileEntry]) -> None:
        """Have files in place that are exactly those expected.

        Parameters
        ----------
        files : mapping of str to FileEntry
            Sizes and checksums by path; a file in place that differs is fetched again.

        Raises
        ------
        VcmbenchError
            Naming each fetched file that is not what is expected; it is discarded.
        """
        wanting = {name: file for name, file in files.items() if not self._holds(name, file)}
        if not wanting:
            return
        self.stage(wanting)
        problems = [problem for item in wanting.items() if (problem := self._place(*item))]
        if problems:
            problems.append("nothing of these was kept; the same command fetches them again")
            raise VcmbenchError("\n".join(problems))

    def clear(self) -> None:
        """Remove the staging folder."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def _holds(self, name: str, expected: FileEntry) -> bool:
        path = self.folder / name
        if path.is_file() and file_entry(path) != expected:
            path.unlink()
        return path.is_file()

    def _place(self, name: str, expected: FileEntry) -> str | None:
        """Move a staged file into place; discard it and say why if it is not as expected."""
        staged, path = self.staging / name, self.folder / name
        if not staged.is_file():
            return f"{name}: not in {self.repo} at {self.commit}"
        found = file_entry(staged)
        if found != expected:
            staged.unlink()
            return (
                f"{name} from {self.repo} at {self.commit}: found {found.size} bytes with sha256 "
                f"{found.sha256}, expected {expected.size} bytes with sha256 {expected.sha256}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(path)
        return None


def file_entry(path: Path) -> FileEntry:
    """Size and checksum of a file."""
    with path.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return FileEntry(size=path.stat().st_size, sha256=sha256)
