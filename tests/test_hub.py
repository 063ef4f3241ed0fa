"""Download and publication against a Hub on localhost, by the command line with the real client."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_hub import TOKEN, FakeHub, serve_hub
from release_toys import toy_release
from test_blocks import CUTOFF, make_structure, random_matrix

from vcmbench.device import Device, Provenance
from vcmbench.documents import json_bytes
from vcmbench.release import FileEntry, Manifest, Release, verify_release
from vcmbench.release.manifest import bytes_entry
from vcmbench.store import write_device

pytest.importorskip("huggingface_hub")

REPO = "vcmbench/tiny"
TIMEOUT_S = 60
CHUNK = 10 << 20
"""Bytes that the client writes at once: it resumes after a multiple of them."""

CLI = "import sys; from vcmbench.cli import main; sys.argv[0] = 'vcmbench'; main()"


def write_release(folder: Path, version: str = "1.0.0", extra: dict[str, bytes] | None = None):
    for seed, name in enumerate(("devices/first", "devices/second", "leads/metal")):
        matrix = random_matrix(make_structure(seed))
        overlap = matrix.with_values(matrix.values / 10)
        device = Device(name.split("/")[1], "bulk", matrix, overlap, Provenance(code="random"))
        write_device(folder / f"{name}.zarr.zip", device)
    parts = {"train": ("first",), "test": ("second",)}
    manifest = toy_release(folder, parts, name="tiny", version=version, support_ang=CUTOFF).manifest
    for name, content in (extra or {}).items():
        (folder / name).write_bytes(content)
        manifest = listing(manifest, name, bytes_entry(content))
    (folder / "manifest.json").write_bytes(json_bytes(manifest))
    return folder


def listing(manifest: Manifest, name: str, entry: FileEntry) -> Manifest:
    """Add a file to a manifest that stays consistent with its own checksum."""
    return manifest.model_copy(update={"files": {**manifest.files, name: entry}}).sealed()


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A release of two devices and a lead."""
    return write_release(tmp_path_factory.mktemp("tiny"))


@dataclass
class World:
    """A Hub, and a user with a cache and a registry of their own."""

    hub: FakeHub
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def release(self) -> Path:
        return self.cache / "releases/tiny@1.0.0"

    def pin(self, revision: str | None, manifest: bytes | None = None) -> None:
        pin = {
            "revision": revision,
            "manifest_sha256": manifest and hashlib.sha256(manifest).hexdigest(),
        }
        registry = {"tiny": {"repo": REPO, "versions": {"1.0.0": pin}}}
        (self.home / "registry.json").write_text(json.dumps(registry))

    def publish(self, folder: Path) -> str:
        """Put a release on the Hub and pin it."""
        files = content(folder)
        commit = self.hub.add(REPO, files, "v1.0.0")
        self.pin(commit, files["manifest.json"])
        return commit

    def start(self, *arguments: str, code: str = CLI) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        environment = {
            **inherited,
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "VCMBENCH_CACHE": str(self.cache),
            "VCMBENCH_REGISTRY": str(self.home / "registry.json"),
            **self.variables,
        }
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: str = CLI) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, code=code)
        out, err = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def download(self, *options: str) -> str:
        """Download, and return what is said."""
        result = self.run("data", "download", "tiny@1.0.0", *options)
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    def fail(self, *arguments: str, code: str = CLI) -> str:
        """Run what must end as a user's mistake does, and return the message in one line."""
        result = self.run(*arguments, code=code)
        assert result.returncode == 2, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return " ".join(result.stderr.split())

    def devices(self) -> list[str]:
        return sorted(path.name.split(".")[0] for path in self.release.glob("devices/*"))


@pytest.fixture
def world(tmp_path):
    with serve_hub() as hub:
        made = World(hub, tmp_path)
        made.pin(None)
        yield made


def wait_until(condition) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_load_downloads_says_so_and_then_needs_no_network(world, tiny):
    world.publish(tiny)
    code = "import vcmbench; print(vcmbench.load('tiny').device('second').id)"
    first = world.run(code=code)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "second\n"
    assert f"downloading tiny@1.0.0 from {REPO}" in first.stderr
    assert {**content(tiny)} == {
        name: data for name, data in content(world.release).items() if name[0] != "."
    }
    asked = len(world.hub.requests)
    again = world.run(code=code)
    assert again.stdout == "second\n"
    assert again.stderr == ""
    assert len(world.hub.requests) == asked


def test_devices_then_a_split_then_all(world, tiny):
    world.publish(tiny)
    assert "1 of 2 devices" in world.download("--devices", "first")
    assert world.devices() == ["first"]
    release = Release.open(world.release)
    assert release.lead("metal").id == "metal"
    assert verify_release(release) == []
    info = json.loads(world.run("data", "info", "tiny@1.0.0", "--json").stdout)
    assert [row["id"] for row in info["devices"]] == ["first"]
    assert info["not_downloaded"] == ["second"]
    (split,) = json.loads(world.run("data", "splits", "tiny@1.0.0", "--json").stdout)
    train, test = split["supervision"]
    assert [train["devices"], train["left_out"], test["devices"], test["left_out"]] == [1, 0, 0, 1]
    assert "6 files as released" in world.run("data", "verify", "tiny@1.0.0").stdout
    for command in (
        ("publish", str(world.release), "--repo", REPO),
        ("hide", "tiny@1.0.0", "--devices", "second", "--public", "p", "--private", "q"),
    ):
        assert "second not downloaded; fetch with" in world.fail("data", *command)
    code = "import vcmbench; vcmbench.load('tiny').device('second')"
    assert (
        "second not downloaded; fetch with: vcmbench data download tiny@1.0.0 --devices second"
        in (world.run(code=code).stderr)
    )
    assert "2 of 2 devices" in world.download("--split", "device:test")
    assert world.devices() == ["first", "second"]
    assert len(world.hub.fetched("first.zarr.zip")) == 1
    (world.release / "devices/second.zarr.zip").unlink()
    assert "second.zarr.zip: missing" in verify_release(Release.open(world.release))[0]
    world.download("--devices", "second")
    assert verify_release(Release.open(world.release)) == []


def test_list_shows_what_is_on_the_hub_and_then_what_is_downloaded(world, tiny):
    world.publish(tiny)

    def listed():
        rows = json.loads(world.run("data", "list", "--json").stdout)
        (row,) = [row for row in rows if row["name"] == "tiny"]
        return row["hub"], row["devices"], row["folder"]

    assert listed() == (REPO, None, None)
    assert REPO in world.run("data", "list").stdout
    world.download("--devices", "first")
    assert listed() == (None, 2, str(world.release))


def test_unknown_names_are_refused(world, tiny):
    world.publish(tiny)
    assert "unknown dataset 'tiy'; did you mean 'tiny'" in world.fail("data", "download", "tiy")
    assert "unknown version of tiny '9'" in world.fail("data", "download", "tiny@9")
    command = ("data", "download", "tiny")
    assert "device of tiny@1.0.0 'frist'; did you" in world.fail(*command, "--devices", "frist")
    assert "unknown part of split 'device' 'tst'" in world.fail(*command, "--split", "tst")
    assert "no such revision" in world.fail(*command, "--revision", "v9")
    assert "no such dataset repository" in world.fail(
        "data", "download", "tiny@1.0.0", "--repo", "me/nothing"
    )
    assert not (world.release / "manifest.json").exists()


def test_unpublished_version_needs_a_repository(world, tiny):
    world.hub.add("me/own", content(tiny), "v1.0.0")
    assert "not published yet" in world.fail("data", "download", "tiny")
    world.download("--repo", "me/own", "--devices", "first")
    world.download("--devices", "second")
    assert world.devices() == ["first", "second"]


def test_other_folder(world, tiny):
    world.publish(tiny)
    target = world.home / "here"
    target.mkdir()
    (target / "README.md").write_text("mine")
    assert "files that no download left" in world.fail(
        "data", "download", "tiny", "--dir", str(target)
    )
    (target / "README.md").unlink()
    world.download("--dir", str(target), "--devices", "first")
    assert f"--devices second --dir {target}" in world.fail(
        "data", "download", "tiny", "--dir", str(target), "--offline"
    )
    assert not world.cache.exists()


def test_cut_connection_is_resumed_within_the_file(world, tmp_path):
    large = os.urandom(2 * CHUNK + 12345)
    world.publish(write_release(tmp_path / "large", extra={"large.bin": large}))
    world.hub.cuts["large.bin"] = [CHUNK + 777]
    world.download()
    assert world.hub.fetched("large.bin")[-1] == f"bytes={CHUNK}-"
    assert (world.release / "large.bin").read_bytes() == large


def test_full_disk_leaves_nothing_half_valid(world, tmp_path):
    pytest.importorskip("resource", reason="a limit on file size stands in for a full disk")
    world.publish(write_release(tmp_path / "large", extra={"large.bin": os.urandom(1 << 20)}))
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19,) * 2); {CLI}"
    assert "File too large" in world.fail("data", "download", "tiny", code=limited)
    assert not (world.release / "manifest.json").exists()
    assert not [path for path in world.release.rglob("*large*") if path.stat().st_size]
    world.download()
    assert verify_release(Release.open(world.release)) == []


@pytest.mark.parametrize("name", ["devices/second.zarr.zip", "README.md"])
def test_corrupt_file_is_named_discarded_and_fetched_again(world, tiny, name):
    world.publish(tiny)
    world.hub.corrupt = {name}
    message = world.fail("data", "download", "tiny")
    expected = hashlib.sha256((tiny / name).read_bytes()).hexdigest()
    assert f"{name} from {REPO} at" in message
    assert f"with sha256 {expected}" in message
    assert not (world.release / name).exists()
    assert not (world.release / "manifest.json").exists()
    world.hub.corrupt = set()
    world.download()
    assert len(world.hub.fetched("leads/metal.zarr.zip")) == 1
    assert verify_release(Release.open(world.release)) == []


def test_file_damaged_in_place_is_fetched_again(world, tiny):
    world.publish(tiny)
    world.download()
    path = world.release / "devices/first.zarr.zip"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    world.download()
    assert verify_release(Release.open(world.release)) == []


def test_moved_tag_is_refused(world, tiny, tmp_path):
    other = write_release(tmp_path / "other", extra={"notes.txt": b"changed"})
    world.publish(tiny)
    world.pin("v1.0.0", (tiny / "manifest.json").read_bytes())
    world.hub.add(REPO, content(other), "v1.0.0")
    message = world.fail("data", "download", "tiny")
    found, expected = (
        hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        for folder in (other, tiny)
    )
    assert f"sha256: found {found}, expected {expected}: a published version never" in message
    assert not (world.release / "manifest.json").exists()


def test_moved_tag_is_refused_without_a_pin_too(world, tiny, tmp_path):
    world.hub.add(REPO, content(tiny), "v1.0.0")
    world.download("--revision", "v1.0.0", "--devices", "first")
    other = write_release(tmp_path / "other", extra={"notes.txt": b"changed"})
    world.hub.add(REPO, content(other), "v1.0.0")
    assert "a published version never changes" in world.fail(
        "data", "download", "tiny", "--revision", "v1.0.0"
    )
    world.download()
    assert world.devices() == ["first", "second"]


def test_manifest_that_leads_out_of_the_folder_is_refused(world, tiny):
    files = content(tiny)
    manifest = Manifest.model_validate_json(files["manifest.json"])
    files["manifest.json"] = json_bytes(listing(manifest, "../../victim", bytes_entry(b"")))
    world.pin(world.hub.add(REPO, files))
    assert "found ../../victim, expected no hidden" in world.fail("data", "download", "tiny")


def test_manifest_that_fails_its_own_checksum_is_refused(world, tiny):
    files = content(tiny)
    files["manifest.json"] = files["manifest.json"].replace(b'"Toys."', b'"Toy."')
    world.hub.add(REPO, files, "v1.0.0")
    command = ("data", "download", "tiny", "--revision", "v1.0.0")
    assert "manifest.json: checksum: found" in world.fail(*command)
    assert not list(world.release.rglob("manifest.json"))


def test_two_downloads_at_once(world, tiny):
    world.publish(tiny)
    world.hub.holds["devices/first.zarr.zip"] = release = threading.Event()
    first = world.start("data", "download", "tiny")
    wait_until(lambda: world.hub.fetched("first.zarr.zip"))
    second = world.start("data", "download", "tiny")
    assert "another process is downloading" in second.stderr.readline()
    release.set()
    ends = [process.communicate(timeout=TIMEOUT_S) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ends
    assert len(world.hub.fetched("first.zarr.zip")) == 1
    assert verify_release(Release.open(world.release)) == []


def test_killed_download_continues(world, tiny):
    world.publish(tiny)
    world.hub.holds["devices/second.zarr.zip"] = threading.Event()
    process = world.start("data", "download", "tiny")
    staged = world.release / ".download/files/devices/first.zarr.zip"
    wait_until(lambda: staged.exists() and world.hub.fetched("second.zarr.zip"))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)
    assert not (world.release / "manifest.json").exists()
    assert list(world.release.rglob("*.incomplete"))
    world.hub.holds.pop("devices/second.zarr.zip").set()
    # Killed between the file's arrival and the client's note of it, the file is kept all the same.
    for note in world.release.rglob("first.zarr.zip.metadata"):
        note.unlink()
    world.download()
    assert len(world.hub.fetched("first.zarr.zip")) == 1
    assert not list(world.release.rglob("*.incomplete"))
    assert verify_release(Release.open(world.release)) == []


@pytest.mark.parametrize("option", [("--offline",), ()])
def test_offline(world, tiny, option):
    world.publish(tiny)
    world.download("--devices", "first")
    asked = len(world.hub.requests)
    if not option:
        world.variables["HF_HUB_OFFLINE"] = "1"
    world.download("--devices", "first", *option)
    assert "second not downloaded; fetch with" in world.fail("data", "download", "tiny", *option)
    world.variables["VCMBENCH_CACHE"] = str(world.home / "empty")
    assert "is not downloaded, and this is offline" in world.fail(
        "data", "download", "tiny", *option
    )
    assert len(world.hub.requests) == asked


def test_without_the_client_the_extra_is_named(world, tiny):
    world.publish(tiny)
    code = f"import sys; sys.modules['huggingface_hub'] = None; {CLI}"
    assert "pip install 'vcmbench[hub]'" in world.fail("data", "download", "tiny", code=code)


def test_publish_then_download(world, tiny):
    world.variables["HF_TOKEN"] = TOKEN
    checked = world.run("data", "publish", str(tiny), "--repo", REPO, "--dry-run")
    assert "nothing sent" in checked.stdout
    assert REPO not in world.hub.repos
    published = world.run("data", "publish", str(tiny), "--repo", REPO)
    assert published.returncode == 0, published.stderr
    repo = world.hub.repos[REPO]
    assert len(repo.commits) == 2  # that of the creation, and one with everything
    printed = json.loads(published.stdout.partition("\n")[2])["1.0.0"]
    assert printed["revision"] == repo.refs["v1.0.0"] == repo.refs["main"]
    registry = {"tiny": {"repo": REPO, "versions": {"1.0.0": printed}}}
    (world.home / "registry.json").write_text(json.dumps(registry))
    world.download()
    assert verify_release(Release.open(world.release)) == []
    again = world.run("data", "publish", str(tiny), "--repo", REPO)
    assert printed["revision"] in again.stdout
    assert len(repo.commits) == 2


def test_next_version_replaces_the_files_and_an_old_tag_keeps_its_own(world, tiny, tmp_path):
    world.variables["HF_TOKEN"] = TOKEN
    first = world.hub.add(REPO, {**content(tiny), "old.txt": b"", ".gitattributes": b""}, "v1.0.0")
    second = write_release(tmp_path / "second", version="2.0.0")
    assert world.run("data", "publish", str(second), "--repo", REPO).returncode == 0
    repo = world.hub.repos[REPO]
    assert set(repo.commits[repo.refs["v2.0.0"]]) == {*content(second), ".gitattributes"}
    assert repo.refs["v1.0.0"] == first


def test_publication_is_refused(world, tiny, tmp_path):
    command = ("data", "publish", str(tiny), "--repo", REPO)
    assert "HF_TOKEN" in world.fail(*command)
    world.variables["HF_TOKEN"] = TOKEN
    other = write_release(tmp_path / "other", extra={"notes.txt": b"changed"})
    commit = world.hub.add(REPO, content(other), "v1.0.0")
    assert "a published version never changes" in world.fail(*command)
    assert world.hub.repos[REPO].refs["v1.0.0"] == commit
    world.pin(commit, b"another manifest")
    assert "registry: tiny@1.0.0: sha256 of manifest.json" in world.fail(*command)
    (other / "notes.txt").write_text("touched")
    assert "notes.txt: found 7 bytes" in world.fail("data", "publish", str(other), "--repo", REPO)
