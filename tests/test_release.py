"""Releases: resolution, splits, and verification that finds any change."""

from __future__ import annotations

import json

import pytest
from test_blocks import make_structure, random_matrix

from vcmbench.device import Device, Provenance
from vcmbench.errors import VcmbenchError
from vcmbench.release import Release, find_release, make_release, verify_release
from vcmbench.store import write_device


def release(folder, parts):
    return make_release(
        folder,
        name="toy",
        version="1.0.0",
        license_id="CC-BY-4.0",
        card=folder / "card.md",
        parts=parts,
        support_ang=5.0,
    )


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("devices/first", "devices/second", "leads/metal")):
        matrix = random_matrix(make_structure(seed))
        overlap = matrix.with_values(matrix.values / 10)
        device = Device(name.split("/")[1], "bulk", matrix, overlap, Provenance(code="random"))
        write_device(tmp_path / f"{name}.zarr.zip", device)
    (tmp_path / "card.md").write_text("# toy\n")
    release(tmp_path, {"train": ("first",), "test": ("second",)})
    return tmp_path


def test_open_load_and_split(folder):
    release = find_release(str(folder))
    assert release.label == "toy@1.0.0"
    assert release.device("first").id == "first"
    assert release.lead("metal").id == "metal"
    assert release.device_ids("test") == ("second",)
    assert release.device_ids("device:train") == ("first",)
    assert verify_release(release) == []


def test_unknown_names_come_with_the_closest(folder):
    release = Release.open(folder)
    with pytest.raises(VcmbenchError, match=r"unknown device of toy@1.0.0 'secnod'.*'second'"):
        release.device("secnod")
    with pytest.raises(VcmbenchError, match=r"unknown part of split 'device' 'tset'.*'test'"):
        release.device_ids("tset")
    with pytest.raises(VcmbenchError, match=r"unknown split of toy@1.0.0 'devce'.*'device'"):
        release.device_ids("devce:test")
    with pytest.raises(VcmbenchError, match=r"unknown dataset 'vcm-dmeo'.*did you mean 'vcm-demo'"):
        find_release("vcm-dmeo")


def test_folder_without_manifest(tmp_path):
    with pytest.raises(VcmbenchError, match=r"manifest\.json: found no such file"):
        find_release(str(tmp_path))


def test_damaged_manifest_is_named(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["devices"]["first"]["digest"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(VcmbenchError, match=r"manifest\.json: devices\.first\.digest: Field req"):
        Release.open(folder)
    path.write_text("{")
    with pytest.raises(VcmbenchError, match=r"manifest\.json: JSON: Invalid JSON"):
        Release.open(folder)


@pytest.mark.parametrize("name", ["devices/first.zarr.zip", "README.md", "splits/device.json"])
@pytest.mark.parametrize("position", [0.02, 0.5, 0.98])
def test_one_flipped_bit_is_found_and_named(folder, name, position):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 4
    path.write_bytes(content)
    problems = verify_release(Release.open(folder))
    assert any(str(path) in problem and "sha256" in problem for problem in problems)


def test_missing_and_added_files_are_named(folder):
    (folder / "README.md").unlink()
    (folder / "notes.txt").write_text("x")
    problems = verify_release(Release.open(folder))
    assert problems == [
        f"{folder}/notes.txt: not in the manifest",
        f"{folder}/README.md: missing",
    ]


def test_split_of_another_release_is_refused(folder):
    path = folder / "splits/device.json"
    split = json.loads(path.read_text())
    split["release"]["digest"] = "0" * 64
    path.write_text(json.dumps(split))
    with pytest.raises(VcmbenchError, match=r"device\.json: release: digest: found 000"):
        Release.open(folder).device_ids("test")


def test_split_with_an_unknown_device_is_refused(folder):
    with pytest.raises(VcmbenchError, match=r"split: test: found \['third'\].*'first', 'second'"):
        release(folder, {"test": ("third",)})
