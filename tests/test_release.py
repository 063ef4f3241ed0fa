"""Releases: resolution, splits, and verification that finds any change."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from release_toys import make_recipe, record_of, toy_release
from test_blocks import CUTOFF, make_structure, random_matrix
from typer.testing import CliRunner

from vcmbench.cli import app
from vcmbench.device import Device, Provenance
from vcmbench.documents import write_json
from vcmbench.errors import VcmbenchError
from vcmbench.release import Release, find_release, make_release, read_recipe, verify_release
from vcmbench.release.families import are_siblings
from vcmbench.release.index import index_rows
from vcmbench.release.manifest import file_entry, release_files
from vcmbench.store import write_device

PARTS = {"train": ("first",), "test": ("second",)}


def write_toy(path: Path, seed: int, *, vacant: int = 0) -> None:
    """Write a random bulk cell; those of one seed differ in which oxygens are vacant."""
    structure = make_structure(seed)
    oxygen = np.flatnonzero(structure.numbers == 8)
    is_ghost = np.zeros(structure.n_sites, dtype=bool)
    is_ghost[oxygen[:vacant]] = True
    matrix = random_matrix(replace(structure, is_ghost=is_ghost))
    overlap = matrix.with_values(matrix.values / 10)
    name = path.name.removesuffix(".zarr.zip")
    write_device(path, Device(name, "bulk", matrix, overlap, Provenance(code="random")))


def release(folder: Path, parts: dict[str, tuple[str, ...]] = PARTS, **changes: object) -> Release:
    return toy_release(folder, parts, support_ang=CUTOFF, **changes)


@pytest.fixture
def stores(tmp_path):
    folder = tmp_path / "toy"
    for seed, name in enumerate(("devices/first", "devices/second", "leads/metal")):
        write_toy(folder / f"{name}.zarr.zip", seed)
    return folder


@pytest.fixture
def folder(stores):
    release(stores)
    return stores


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


def test_every_flipped_bit_is_found_and_named(folder):
    """At random places of every file, the manifest included."""
    rng = np.random.default_rng(0)
    for name in ("manifest.json", *release_files(folder)):
        path = folder / name
        original = path.read_bytes()
        for _ in range(12):
            damaged = bytearray(original)
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                problems = verify_release(Release.open(folder))
            except VcmbenchError as error:
                assert name == "manifest.json"
                problems = [str(error)]
            assert any(str(path) in problem for problem in problems), (name, problems)
        path.write_bytes(original)
    assert verify_release(Release.open(folder)) == []


def test_another_spelling_of_the_manifest_is_damage(folder):
    """A number or an escape can be spelt in two ways that parse alike."""
    path = folder / "manifest.json"
    text = path.read_text()
    assert "5.0" in text
    path.write_text(text.replace("5.0", "5.00"))
    with pytest.raises(VcmbenchError, match=r"manifest\.json: bytes: found other spelling"):
        Release.open(folder)


def test_verify_prints_its_problems_as_json(folder):
    (folder / "README.md").write_text("other")
    outcome = CliRunner().invoke(app, ["data", "verify", str(folder), "--json"])
    document = json.loads(outcome.stdout)
    assert document["release"] == "toy@1.0.0"
    assert len(document["problems"]) == 1
    assert "README.md" in document["problems"][0]
    assert outcome.exit_code != 0


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


def test_manifest_that_points_outside_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"devices/first.zarr.zip"', '"../first.zarr.zip"'))
    with pytest.raises(VcmbenchError, match=r"devices\.first\.path: String should match pattern"):
        Release.open(folder)


def test_hidden_files_of_a_download_are_not_part_of_a_release(folder):
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / ".cache/huggingface/README.md.metadata").write_text("x")
    assert verify_release(Release.open(folder)) == []


class TestRefused:
    """What a release must not be made of; nothing is written where it is refused."""

    @pytest.fixture(autouse=True)
    def _nothing_is_written(self, stores):
        before = {name: file_entry(stores / name) for name in release_files(stores)}
        yield
        assert {name: file_entry(stores / name) for name in release_files(stores)} == before
        assert not (stores / "manifest.json").exists()
        assert not list(stores.rglob("*.tmp"))

    def test_unknown_device(self, stores):
        with pytest.raises(
            VcmbenchError, match=r"'device': parts: test: found \['third'\].*'first', 'second'"
        ):
            release(stores, {"test": ("third",)})

    def test_device_in_two_parts(self, stores):
        with pytest.raises(ValueError, match=r"'first' in 'train' and in 'test'"):
            release(stores, {"train": ("first",), "test": ("first",)})

    def test_smaller_support(self, stores):
        with pytest.raises(
            VcmbenchError, match=r"first\.zarr\.zip: blocks: found .* closer than 6"
        ):
            toy_release(stores, PARTS, support_ang=6.0)

    def test_card_with_a_marker_without_end(self, stores):
        with pytest.raises(VcmbenchError, match=r"no end.*<!-- end devices -->"):
            self.with_card(stores, "<!-- begin devices -->")

    def test_card_with_an_unknown_section(self, stores):
        with pytest.raises(
            VcmbenchError, match=r"unknown section.*'devcies'; did you mean 'devices"
        ):
            self.with_card(stores, "<!-- begin devcies -->\n<!-- end devcies -->")

    def with_card(self, stores, text):
        card = stores.parent / "other.md"
        card.write_text(text)
        make_release(stores, make_recipe(card, PARTS, support_ang=CUTOFF))

    def test_interrupted_write(self, stores, monkeypatch):
        written = []

        def full(path, content):
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            written.append(path)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            release(stores)


def test_siblings_stay_in_one_part(stores):
    write_toy(stores / "devices/sibling.zarr.zip", seed=0, vacant=2)
    message = r"parts: test: found 'sibling', a sibling of 'first' in 'train', expected"
    with pytest.raises(VcmbenchError, match=message):
        release(stores, {"train": ("first",), "test": ("second", "sibling")})
    assert not (stores / "manifest.json").exists()
    made = release(stores, {"train": ("first", "sibling"), "ood-filament": ("second",)})
    assert made.device_ids("ood-filament") == ("second",)
    rows = {row.id: row for row in index_rows(made)}
    assert rows["sibling"].family == rows["first"].family == "first"
    assert rows["second"].family == "second"


def test_device_in_no_part_and_no_partition_is_refused(stores):
    with pytest.raises(VcmbenchError, match=r"parts: found none with \['second'\], expected every"):
        release(stores, {"train": ("first",)})
    assert not (stores / "manifest.json").exists()


def test_store_under_another_devices_name_is_found(folder):
    """Renamed in a manifest made anew, as by hand: the id in the store tells."""
    opened = Release.open(folder)
    devices = dict(opened.manifest.devices)
    devices["other"] = devices.pop("first")
    renamed = opened.manifest.model_copy(update={"devices": devices})
    problems = verify_release(replace(opened, manifest=renamed))
    assert any("first.zarr.zip: id: found 'first', expected 'other'" in p for p in problems)


def test_foreign_file_is_refused_and_left_alone(stores):
    (stores / "splits").mkdir()
    (stores / "splits/old.json").write_text("{}")
    with pytest.raises(VcmbenchError, match=r"files: found splits/old\.json, expected only stores"):
        release(stores)
    assert (stores / "splits/old.json").read_text() == "{}"


def test_records_of_the_runs_belong_to_the_release_and_its_card(stores):
    record = record_of(stores / "devices" / "first.zarr.zip")
    write_json(stores / "records" / "first.json", record)
    made = release(stores)
    assert "records/first.json" in made.manifest.files
    assert verify_release(made) == []
    runs = (stores / "README.md").read_text().split("<!-- begin runs -->")[1]
    assert "| `first` | 3 | atomic | 1 | 23 | 10.0 |" in runs


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("first", {"content_digest": "0"}, "content_digest: found 0, expected"),
        ("first", {"id": "second"}, "id: found second"),
        ("third", {"id": "third"}, "id: found third"),
    ],
)
def test_record_of_another_store_is_refused(stores, name, changes, message):
    record = record_of(stores / "devices" / "first.zarr.zip", **changes)
    write_json(stores / "records" / f"{name}.json", record)
    with pytest.raises(VcmbenchError, match=message):
        release(stores)
    assert not (stores / "manifest.json").exists()


def test_failed_release_leaves_the_old_one(folder):
    before = {name: file_entry(folder / name) for name in release_files(folder)}
    with pytest.raises(VcmbenchError, match="found \\['third'\\]"):
        release(folder, {"test": ("third",)}, version="2.0.0")
    assert verify_release(Release.open(folder)) == []
    assert {name: file_entry(folder / name) for name in release_files(folder)} == before


def test_siblings_are_found_in_any_order_and_image(demo):
    structure = demo.device("device-a").structure
    rng = np.random.default_rng(1)
    shifts = rng.integers(-1, 2, (structure.n_sites, 3)) @ structure.cell
    noise = rng.normal(scale=0.02, size=structure.positions.shape)
    moved = structure.moved(structure.positions + shifts + noise)
    same = moved.permuted(rng.permutation(structure.n_sites))
    ghosts = ~same.is_ghost & (same.numbers == 8) & (rng.random(same.n_sites) < 0.5)
    assert are_siblings(structure, replace(same, is_ghost=ghosts))
    assert not are_siblings(structure, demo.device("device-b").structure)
    elsewhere = structure.positions.copy()
    elsewhere[150] += 0.5
    assert not are_siblings(structure, structure.moved(elsewhere))


def test_the_demo_is_what_its_recipe_makes(demo, tmp_path):
    """Card, splits and digest follow from stores and recipe, byte by byte."""
    recipe = Path(__file__).parents[1] / "data_cards/vcm-demo.release.yml"
    for kind in ("devices", "leads"):
        shutil.copytree(demo.folder / kind, tmp_path / "again" / kind)
    made = make_release(tmp_path / "again", read_recipe(recipe))
    assert made.manifest.digest == demo.manifest.digest
    assert made.manifest.devices == demo.manifest.devices
    for name in ("README.md", "splits/device.json"):
        assert (made.folder / name).read_bytes() == (demo.folder / name).read_bytes()


def test_card_that_asks_for_a_plot_gets_its_file(demo, tmp_path):
    for kind in ("devices", "leads"):
        shutil.copytree(demo.folder / kind, tmp_path / "plotted" / kind)
    recipe = read_recipe(Path(__file__).parents[1] / "data_cards/vcm-demo.release.yml")
    text = recipe.card.read_text() + "\n<!-- begin rdf-plot -->\n<!-- end rdf-plot -->\n"
    (tmp_path / "card.md").write_text(text)
    made = make_release(
        tmp_path / "plotted", recipe.model_copy(update={"card": tmp_path / "card.md"})
    )
    assert verify_release(made) == []
    assert "rdf.png" in made.manifest.files
    assert "![g(r) of the oxides](rdf.png)" in (made.folder / "README.md").read_text()
    assert (made.folder / "rdf.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", r"r\.yml: not a YAML document"),
        ("- name", r"r\.yml: content: found list, expected a mapping"),
        ("name: ../toy", r"r\.yml: name: String should match pattern"),
        ("name: Toy Data", r"r\.yml: name: String should match pattern"),
        ("name: toy\nsplit: {}", r"version: Field required"),
    ],
)
def test_wrong_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "r.yml"
    path.write_text(text)
    with pytest.raises(VcmbenchError, match=message):
        read_recipe(path)
    with pytest.raises(VcmbenchError, match=r"none\.yml: cannot be read"):
        read_recipe(tmp_path / "none.yml")
