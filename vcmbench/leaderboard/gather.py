"""Fetch the predictions of a submission from where they are hosted: never more than declared."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Final

from vcmbench.errors import VcmbenchError, bad_input
from vcmbench.hub.client import hub_client, hub_errors
from vcmbench.leaderboard.submission import (
    HubHosting,
    PredictionFile,
    UrlHosting,
    prediction_name,
)
from vcmbench.leaderboard.validate import Entry
from vcmbench.release.manifest import file_entry
from vcmbench.store.content import atomic_file

TIMEOUT_S: Final = 60
_STEP_BYTES: Final = 1 << 20

Progress = Callable[[str, int, int], None]


def fetch_predictions(entry: Entry, folder: Path, progress: Progress) -> None:
    """Download what is not there yet; each file is written under its device's name.

    Parameters
    ----------
    entry : Entry
        Submission whose predictions are on the Hub or below an address.
    folder : Path
        Where to.
    progress : callable
        Called with what is done, files so far and all files.

    Raises
    ------
    VcmbenchError
        If a file cannot be fetched or is larger than declared. Checksums are checked later.
    """
    files = entry.predictions.files
    hosting = entry.predictions.hosting
    for index, (device_id, expected) in enumerate(files.items()):
        progress("download", index, len(files))
        name = prediction_name(device_id)
        if _is_there(folder / name, expected):
            continue
        if isinstance(hosting, HubHosting):
            _from_hub(hosting, name, folder, expected)
        elif isinstance(hosting, UrlHosting):
            _from_url(f"{hosting.base}{name}", folder / name, expected)
    progress("download", len(files), len(files))


def _is_there(path: Path, expected: PredictionFile) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != expected.size:
        return False
    return file_entry(path).sha256 == expected.sha256


def _from_hub(hosting: HubHosting, name: str, folder: Path, expected: PredictionFile) -> None:
    with hub_errors(f"{name} from {hosting.repo}"):
        hub = hub_client()
        found = hub.HfApi().get_paths_info(
            hosting.repo, [name], revision=hosting.revision, repo_type="dataset"
        )
        size = found[0].size if found else None
        if size != expected.size:
            raise bad_input(
                f"{hosting.repo} at {hosting.revision}",
                name,
                found="no such file" if size is None else f"{size} bytes",
                expected=f"{expected.size} bytes",
            )
        hub.hf_hub_download(
            hosting.repo, name, revision=hosting.revision, repo_type="dataset", local_dir=folder
        )


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise bad_input(req.full_url, "redirect", found=newurl, expected="an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _from_url(url: str, path: Path, expected: PredictionFile) -> None:
    opener = urllib.request.build_opener(_HttpsOnly)
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer, atomic_file(path) as temporary:
            _save(answer, temporary, url, expected.size)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise VcmbenchError(f"{url}: cannot be fetched ({error})") from error


def _save(answer: Any, path: Path, url: str, size: int) -> None:
    """Write an answer; stop as soon as it is longer than declared."""
    written = 0
    with path.open("wb") as handle:
        while block := answer.read(_STEP_BYTES):
            written += len(block)
            if written > size:
                raise bad_input(url, "size", found="more", expected=f"{size} bytes")
            handle.write(block)
    if written != size:
        raise bad_input(url, "size", found=f"{written} bytes", expected=f"{size}")
