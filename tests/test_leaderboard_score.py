"""Trusted scoring: honest claims give a record, everything else is refused."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import threading
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from fake_hub import serve_hub
from leaderboard_toys import (
    edit_json,
    rewrite_archive,
    submit,
    throughput_report,
    write_hardware,
)
from release_toys import toy_release
from typer.testing import CliRunner

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.cli import app
from vcmbench.device import contact_blocks
from vcmbench.errors import VcmbenchError
from vcmbench.leaderboard.archive import Limits, _zstd_size, inspect_prediction
from vcmbench.leaderboard.copies import TOLERATED, copied_fraction
from vcmbench.leaderboard.gather import fetch_predictions
from vcmbench.leaderboard.pack import pack
from vcmbench.leaderboard.record import Record, read_record, record_path
from vcmbench.leaderboard.score import Scoring, outdated, score
from vcmbench.leaderboard.validate import check_predictions, read_entry
from vcmbench.models.loader import known_baselines
from vcmbench.release import Release
from vcmbench.release.hidden import hide_devices
from vcmbench.store import read_device, write_device, write_predictions


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests of this module, away from the user's."""
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def release(wire_release) -> Release:
    return Release.open(wire_release)


@pytest.fixture(scope="module")
def original(tmp_path_factory, release) -> Path:
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        submit(folder, "noisy", release)
    write_hardware(folder)
    return folder


@pytest.fixture
def leaderboard(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "leaderboard"))


def scoring(leaderboard: Path, release: Release, **options: object) -> Scoring:
    fields: dict[str, object] = {
        "leaderboard": leaderboard,
        "work": leaderboard / "work",
        "release": release,
        "predictions": leaderboard / "predictions" / "noisy",
    }
    return Scoring(**{**fields, **options})


def repack(leaderboard: Path, store: Path) -> None:
    """Declare what lies in the store now."""
    content = store.read_bytes()
    edit_json(
        leaderboard / "submissions/noisy/predictions.json",
        {
            "files.wire.size": len(content),
            "files.wire.sha256": hashlib.sha256(content).hexdigest(),
        },
    )


def store_of(leaderboard: Path) -> Path:
    return leaderboard / "predictions/noisy/wire.zarr.zip"


def test_an_honest_submission_gets_its_record(leaderboard, release):
    folder = leaderboard / "submissions/noisy"
    record = score(folder, scoring(leaderboard, release))
    assert read_record(record_path(leaderboard, "noisy")) == record
    assert record.submission_digest == read_entry(folder, release).digest
    # The mean of |noise| is sqrt(2/pi) of its deviation of 1 meV.
    assert record.mae_mev == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)
    assert record.result.model.name == "noisy"
    assert record.hidden is None
    assert record.throughput is None
    assert record.copied_fraction == 0
    curves = record.transmission["wire"]
    device = release.device("wire")
    assert curves.energies_ev == tuple(device.transport.energies_ev)
    assert curves.reference == pytest.approx(device.transport.mean, rel=1e-5)
    text = record_path(leaderboard, "noisy").read_text()
    assert len(text.splitlines()) < 1500
    assert outdated(leaderboard) == []
    edit_json(folder / "result.json", {"model.name": "other"})
    assert outdated(leaderboard) == [folder]


@pytest.mark.parametrize(
    ("figure", "value", "message"),
    [
        ("hamiltonian.mae_mev", 0.5, "hamiltonian.mae_mev: claimed 0.5, found 0.7"),
        ("hamiltonian.devices.wire.mae_mev", 0.5, "hamiltonian.devices.wire.mae_mev: claimed 0.5"),
        ("transmission.log10_mae", 0.0, "transmission.log10_mae: claimed 0, found"),
        ("spectrum.mae_mev", 0.0, "spectrum.mae_mev: claimed 0, found"),
    ],
)
def test_claims_that_do_not_reproduce_are_rejected_with_the_difference(
    leaderboard, release, figure, value, message
):
    folder = leaderboard / "submissions/noisy"
    edit_json(folder / "result.json", {figure: value})
    with pytest.raises(VcmbenchError) as error:
        score(folder, scoring(leaderboard, release))
    assert message in str(error.value)
    assert "difference" in str(error.value)
    assert not record_path(leaderboard, "noisy").exists()


def test_all_differences_are_named(leaderboard, release):
    folder = leaderboard / "submissions/noisy"
    edit_json(folder / "result.json", {"hamiltonian.mae_mev": 0.1, "hamiltonian.p99_mev": 0.1})
    with pytest.raises(VcmbenchError) as error:
        score(folder, scoring(leaderboard, release))
    assert len(str(error.value).splitlines()) == 2


def test_predictions_that_were_changed_after_packing_are_refused(leaderboard, release):
    store = store_of(leaderboard)
    content = bytearray(store.read_bytes())
    content[len(content) // 2] ^= 1
    store.write_bytes(content)
    with pytest.raises(VcmbenchError, match=r"wire\.zarr\.zip: sha256"):
        score(leaderboard / "submissions/noisy", scoring(leaderboard, release))
    store.write_bytes(content[:-1])
    with pytest.raises(VcmbenchError, match=r"wire\.zarr\.zip: size"):
        score(leaderboard / "submissions/noisy", scoring(leaderboard, release))
    store.unlink()
    store.symlink_to("/etc/passwd")
    with pytest.raises(VcmbenchError, match="none, or a link"):
        score(leaderboard / "submissions/noisy", scoring(leaderboard, release))


# --- copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("directed", [False, True])
def test_copied_reference_labels_are_found(leaderboard, release, directed):
    reference = release.device("wire").hamiltonian
    matrix = reference.directed() if directed else reference
    write_predictions(leaderboard / "predictions/noisy", "wire", matrix, gauge="fermi")
    repack(leaderboard, store_of(leaderboard))
    with pytest.raises(VcmbenchError, match=r"prediction for wire: found 100.0% of the blocks"):
        score(leaderboard / "submissions/noisy", scoring(leaderboard, release))


def test_copied_on_site_blocks_alone_are_found(demo):
    """One block in a hundred, which carry most of the error."""
    device = demo.device("device-b")
    noise = np.random.default_rng(0).normal(scale=1e-4, size=device.pattern.n_entries)
    noisy = device.hamiltonian.with_values(device.hamiltonian.values + noise)
    assert copied_fraction(noisy, device) == 0
    copied = noisy.replaced(device.hamiltonian, device.pattern.is_onsite)
    assert 50 * TOLERATED < copied_fraction(copied, device) < 0.02


def test_a_model_that_is_exact_in_the_contacts_alone_copies_nothing(release):
    """The contacts are the same in every device, and public where the rest is withheld."""
    device = release.device("wire")
    noise = np.random.default_rng(0).normal(scale=1e-4, size=device.pattern.n_entries)
    noisy = device.hamiltonian.with_values(device.hamiltonian.values + noise)
    assert copied_fraction(noisy, device) == 0
    exact = noisy.replaced(device.hamiltonian, contact_blocks(device.pattern))
    assert copied_fraction(exact, device) == 0
    assert copied_fraction(device.hamiltonian, device) == 1


# --- archives ---------------------------------------------------------------------------------


def inspected(leaderboard: Path, release: Release) -> list[str]:
    limits = Limits.of(release.device("wire").pattern)
    return [str(problem) for problem in inspect_prediction(store_of(leaderboard), limits)]


def metadata(store: Path, array: str) -> dict:
    with zipfile.ZipFile(store) as archive:
        return json.loads(archive.read(f"blocks/{array}/zarr.json"))


def lie(store: Path, array: str, **changes: object) -> None:
    document = {**metadata(store, array), **changes}
    rewrite_archive(store, {f"blocks/{array}/zarr.json": json.dumps(document).encode()})


def chunked(*shape: int) -> dict[str, object]:
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


def test_an_honest_archive_passes(leaderboard, release):
    assert inspected(leaderboard, release) == []


def test_a_store_written_with_zarr_alone_passes(leaderboard, release):
    """As somebody would who has no vcmbench in the environment of the model."""
    device = release.device("wire")
    store = store_of(leaderboard)
    store.unlink()
    zipped = zarr.storage.ZipStore(store, mode="w")
    root = zarr.open_group(zipped, mode="w", zarr_format=3)
    root.update_attributes({"schema_version": 1, "id": "wire", "gauge": "fermi"})
    pattern = device.pattern
    for name, data in (
        ("pair", pattern.pair),
        ("shift", pattern.shift),
        ("offset", pattern.offset),
        ("hamiltonian", device.hamiltonian.values.astype("f4")),
    ):
        root.create_array(f"blocks/{name}", data=data)
    zipped.close()
    # ZipStore writes a group's metadata anew with its attributes: the last one counts.
    assert zipfile.ZipFile(store).namelist().count("zarr.json") == 2
    assert inspected(leaderboard, release) == []


@pytest.mark.parametrize(
    "name",
    [
        "../../outside",
        "/etc/outside",
        "blocks/../../outside",
        "blocks\\..\\outside",
        "blocks/pair/c/../../../x",
        "blocks/hamiltonian/c/0/../1",
        "extra/zarr.json",
        "blocks/hamiltonian/c/٣",
        "blocks/hamiltonian/c/-1",
    ],
)
def test_names_that_no_prediction_has_are_refused(leaderboard, release, name):
    rewrite_archive(store_of(leaderboard), {name: b"x"})
    assert any("a foreign name" in line for line in inspected(leaderboard, release))


def test_links_encryption_and_repeated_names_are_refused(leaderboard, release):
    store = store_of(leaderboard)
    clean = store.read_bytes()
    with zipfile.ZipFile(store, "a") as archive:
        link = zipfile.ZipInfo("blocks/hamiltonian/c/9")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert any("a link" in line for line in inspected(leaderboard, release))
    store.write_bytes(clean)
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(store, "a") as archive,
    ):
        archive.writestr("blocks/hamiltonian/c/0", b"x")
    assert any("an undeclared size" in line for line in inspected(leaderboard, release))
    content = bytearray(clean)
    content[content.index(b"PK\x01\x02") + 8] |= 1
    store.write_bytes(content)
    assert any("encryption" in line for line in inspected(leaderboard, release))


def test_a_deflated_bomb_is_refused_by_its_declared_size(leaderboard, release):
    store = store_of(leaderboard)
    with zipfile.ZipFile(store, "a", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("blocks/hamiltonian/c/9", bytes(300_000_000))
    assert store.stat().st_size < 20_000_000
    assert any("300000000 bytes" in line for line in inspected(leaderboard, release))


def test_too_many_and_too_much_are_refused_before_anything_is_read(leaderboard, release):
    store = store_of(leaderboard)
    clean = store.read_bytes()
    with zipfile.ZipFile(store, "a") as archive:
        for number in range(10_001):
            archive.writestr(f"blocks/pair/c/{number // 1000}/{number % 1000}", b"")
    (line,) = inspected(leaderboard, release)
    assert "members: found" in line
    store.write_bytes(clean)
    with zipfile.ZipFile(store, "a", compression=zipfile.ZIP_DEFLATED) as archive:
        for number in range(101, 105):
            archive.writestr(f"blocks/hamiltonian/c/{number}", bytes(200_000_000))
    assert any(
        re.search(r"members: found 8\d{8} bytes", x) for x in inspected(leaderboard, release)
    )


def test_more_blocks_than_the_device_can_need_are_refused(leaderboard, release):
    lie(store_of(leaderboard), "pair", shape=[10**6, 2], chunk_grid=chunked(10**6, 2))
    found = inspected(leaderboard, release)
    assert any("blocks/pair: shape: found 1000000 blocks" in line for line in found), found


def test_a_bomb_that_lies_about_its_size_reads_no_further(leaderboard, release):
    """The directory says 10 bytes, the member inflates to 100 MB: zipfile stops at 10."""
    store = store_of(leaderboard)
    name = b"blocks/offset/c/0"
    with zipfile.ZipFile(store) as archive:
        members = {n: archive.read(n) for n in archive.namelist() if n != name.decode()}
    with zipfile.ZipFile(store, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(name.decode(), bytes(100_000_000))
    content = bytearray(store.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.rindex(name)
        if signature == b"PK\x03\x04":
            place = content.index(name)
        start = content.rindex(signature, 0, place)
        struct.pack_into("<I", content, start + at, 10)
    store.write_bytes(content)
    assert inspected(leaderboard, release) != []


@pytest.mark.parametrize(
    ("array", "changes", "message"),
    [
        ("hamiltonian", {"shape": [10**12]}, "blocks/hamiltonian: chunks: found"),
        ("hamiltonian", {"shape": [10**12], "chunk_grid": chunked(10**12)}, "chunk: found"),
        ("hamiltonian", {"shape": [3 * 10**7]}, "times the device's support"),
        ("hamiltonian", {"shape": [-1]}, "blocks/hamiltonian: shape"),
        ("hamiltonian", {"shape": [4, 4], "chunk_grid": chunked(4, 4)}, "shape: found [4, 4]"),
        ("hamiltonian", {"shape": []}, "shape: found []"),
        ("hamiltonian", {"shape": [4]}, "outside the grid"),
        ("hamiltonian", {"chunk_grid": chunked(0)}, "chunk_shape"),
        ("hamiltonian", {"chunk_grid": chunked(1 << 20)}, "chunks"),
        ("hamiltonian", {"data_type": "int64"}, "bytes decompressed"),
        ("hamiltonian", {"data_type": "string"}, "data_type"),
        ("hamiltonian", {"data_type": "object"}, "data_type"),
        ("hamiltonian", {"codecs": [{"name": "numcodecs.pickle"}]}, "codecs"),
        ("hamiltonian", {"codecs": [{"name": "bytes"}, {"name": "gzip"}]}, "codecs"),
        ("hamiltonian", {"codecs": [{"name": "sharding_indexed"}]}, "codecs"),
        ("hamiltonian", {"codecs": []}, "codecs"),
        ("hamiltonian", {"storage_transformers": [{"name": "x"}]}, "storage_transformers"),
        ("hamiltonian", {"zarr_format": 2}, "zarr_format"),
        ("hamiltonian", {"evil": 1}, "an unknown field"),
        ("pair", {"shape": [10**9, 2], "chunk_grid": chunked(10**9, 2)}, "blocks/pair: chunk"),
        ("pair", {"shape": [7, 2]}, "blocks/shift: shape"),
        ("pair", {"shape": [7, 3], "chunk_grid": chunked(7, 3)}, "expected (n, 2)"),
        ("offset", {"shape": [3], "chunk_grid": chunked(3)}, "blocks/offset: shape"),
    ],
)
def test_metadata_that_lie_are_refused(leaderboard, release, array, changes, message):
    lie(store_of(leaderboard), array, **changes)
    found = inspected(leaderboard, release)
    assert any(message in line for line in found), found


def test_consolidated_metadata_are_refused(leaderboard, release):
    """They would stand in place of what was looked at."""
    store = store_of(leaderboard)
    with zipfile.ZipFile(store) as archive:
        root = json.loads(archive.read("zarr.json"))
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {}}
    rewrite_archive(
        store,
        {"zarr.json": json.dumps({**root, "consolidated_metadata": consolidated}).encode()},
    )
    assert any("consolidated_metadata" in line for line in inspected(leaderboard, release))


def test_chunks_that_decompress_to_something_else_are_refused(leaderboard, release):
    store = store_of(leaderboard)
    name = "blocks/hamiltonian/c/0"
    with zipfile.ZipFile(store) as archive:
        chunk = bytearray(archive.read(name))
    struct.pack_into("<I", chunk, 4, 2**31)
    rewrite_archive(store, {name: bytes(chunk)})
    assert any("2147483648 bytes decompressed" in line for line in inspected(leaderboard, release))
    rewrite_archive(store, {name: b"short"})
    assert any("an undeclared size" in line for line in inspected(leaderboard, release))
    rewrite_archive(store, {name: None})
    assert any("1 missing" in line for line in inspected(leaderboard, release))


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"\x28\xb5\x2f\xfd\x20\x0a", 10),
        (b"\x28\xb5\x2f\xfd\x60\x00\x01", 512),
        (b"\x28\xb5\x2f\xfd\xa0\x40\x0d\x03\x00", 200_000),
        (b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little"), 2**40),
        (b"\x28\xb5\x2f\xfd\x00\x58", None),
        (b"\x28\xb5\x2f\xfd", None),
        (b"nothing like it", None),
    ],
)
def test_the_size_in_a_zstandard_header(head, size):
    assert _zstd_size(head) == size


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip" * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(leaderboard, release, content):
    store_of(leaderboard).write_bytes(content)
    assert len(inspected(leaderboard, release)) > 0


def test_nan_entries_are_refused_when_read(leaderboard, release):
    device = release.device("wire")
    store = store_of(leaderboard)
    values = device.hamiltonian.values.astype("f4")
    values[17] = np.nan
    count = len(values)
    rewrite_archive(
        store,
        {
            n: None
            for n in zipfile.ZipFile(store).namelist()
            if n.startswith("blocks/hamiltonian/c/")
        },
    )
    lie(
        store,
        "hamiltonian",
        data_type="float32",
        fill_value=0.0,
        attributes={},
        codecs=[{"name": "bytes", "configuration": {"endian": "little"}}],
        chunk_grid=chunked(count),
    )
    rewrite_archive(store, {"blocks/hamiltonian/c/0": values.tobytes()})
    assert inspected(leaderboard, release) == []
    repack(leaderboard, store)
    with pytest.raises(VcmbenchError, match="found nan in block"):
        score(leaderboard / "submissions/noisy", scoring(leaderboard, release))


def test_predictions_for_another_device_are_refused(leaderboard, release):
    bulk = release.device("bulk")
    other = leaderboard / "other"
    write_predictions(other, "bulk", bulk.hamiltonian, gauge="fermi")
    shutil.copyfile(other / "bulk.zarr.zip", store_of(leaderboard))
    repack(leaderboard, store_of(leaderboard))
    with pytest.raises(VcmbenchError, match="id: found 'bulk', expected 'wire'"):
        score(leaderboard / "submissions/noisy", scoring(leaderboard, release))


# --- throughput -------------------------------------------------------------------------------


def test_throughput_is_verified_only_on_a_named_machine(leaderboard, release):
    folder = leaderboard / "submissions/noisy"
    path = leaderboard / "throughput.json"

    def scored(hardware: str | None, **changes: object) -> Record:
        path.write_text(json.dumps(throughput_report(**changes)))
        options = scoring(leaderboard, release, hardware=hardware, throughput=path)
        return score(folder, options)

    speed = scored("bench-gpu").throughput
    assert (speed.hardware, speed.atoms_per_s, speed.slope) == ("bench-gpu", 800, 1)
    assert speed.peak_memory_bytes == 1 << 30
    assert [rung.outcome for rung in speed.ladder] == ["measured", "measured", "out of memory"]
    gpu = throughput_report()["devices"]["accelerator"]
    for hardware, changes, message in (
        ("bench-gpux", {}, "did you mean 'bench-gpu'"),
        ("bench-cpu", {}, "accelerator.kind: found 'cuda', expected 'cpu'"),
        ("bench-gpu", {"accelerator": {**gpu, "name": "Bench 2"}}, "accelerator.name"),
        ("bench-gpu", {"accelerator": {**gpu, "threads": 4}}, "accelerator.threads"),
        ("bench-gpu", {"counts": False}, "a gate that failed"),
        ("bench-gpu", {"near": {}}, "near.cutoff_ang: Field required"),
        (None, {}, "expected both or neither"),
    ):
        with pytest.raises(VcmbenchError, match=re.escape(message)):
            scored(hardware, **changes)


def test_throughput_of_other_weights_is_refused(leaderboard, release):
    folder, path = leaderboard / "submissions/noisy", leaderboard / "throughput.json"
    edit_json(folder / "result.json", {"model.digest": 64 * "a"})
    path.write_text(
        json.dumps(throughput_report(model={"name": "x", "kind": "directory", "digest": 64 * "b"}))
    )
    with pytest.raises(VcmbenchError, match=r"model\.digest"):
        score(folder, scoring(leaderboard, release, hardware="bench-gpu", throughput=path))


# --- parts out of distribution ----------------------------------------------------------------


@pytest.fixture(scope="module")
def moved_release(tmp_path_factory, release, wire) -> Release:
    """The wires with a part out of distribution that has contacts, and one that has none."""
    folder = tmp_path_factory.mktemp("moved") / "wires"
    shutil.copytree(release.folder / "devices", folder / "devices")
    moved = wire.structure.moved(wire.structure.positions + 0.5)
    pattern = BlockPattern(moved, wire.basis, wire.pattern.pair, wire.pattern.shift)
    h, s = (BlockMatrix(pattern, matrix.values) for matrix in (wire.hamiltonian, wire.overlap))
    other = replace(wire, id="moved", hamiltonian=h, overlap=s)
    write_device(folder / "devices/moved.zarr.zip", other)
    write_device(folder / "leads/lead-tin.zarr.zip", release.lead("lead-tin"))
    parts = {"train": (), "test": ("wire",), "ood-bulk": ("bulk",), "ood-moved": ("moved",)}
    return toy_release(folder, parts, name="wires", version="0.3.0")


@pytest.fixture(scope="module")
def with_parts(tmp_path_factory, moved_release) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        submit(folder, "noisy", moved_release, parts=("ood-bulk", "ood-moved"))
    write_hardware(folder)
    return folder


@pytest.fixture
def further_board(with_parts, tmp_path) -> Path:
    return Path(shutil.copytree(with_parts, tmp_path / "leaderboard"))


def test_parts_out_of_distribution_are_scored_with_the_rest(further_board, moved_release):
    folder = further_board / "submissions/noisy"
    entry = read_entry(folder, moved_release)
    assert set(entry.predictions.files) == {"wire", "bulk", "moved"}
    record = score(folder, scoring(further_board, moved_release))
    assert read_record(record_path(further_board, "noisy")) == record
    moved, bulk = record.further["ood-moved"], record.further["ood-bulk"]
    assert (moved.devices, bulk.devices) == (("moved",), ("bulk",))
    for part in (moved, bulk):
        assert part.mae_mev == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)
    assert moved.log10_mae > 0
    assert set(moved.transmission) == {"moved"}
    assert (bulk.log10_mae, bulk.transmission) == (None, {})
    assert list(record.curves) == ["wire", "moved"]
    assert set(record.transmission) == {"wire"}


def test_claims_of_a_further_part_that_do_not_reproduce_are_rejected(further_board, moved_release):
    folder = further_board / "submissions/noisy"
    edit_json(folder / "result-ood-moved.json", {"hamiltonian.mae_mev": 0.1})
    with pytest.raises(VcmbenchError, match=r"result-ood-moved\.json: not reproduced: hamiltonian"):
        score(folder, scoring(further_board, moved_release))
    assert not record_path(further_board, "noisy").exists()


def test_copied_labels_of_a_further_part_are_found(further_board, moved_release):
    store = further_board / "predictions/noisy/moved.zarr.zip"
    write_predictions(
        store.parent, "moved", moved_release.device("moved").hamiltonian, gauge="fermi"
    )
    declared = {
        "files.moved.size": store.stat().st_size,
        "files.moved.sha256": hashlib.sha256(store.read_bytes()).hexdigest(),
    }
    edit_json(further_board / "submissions/noisy/predictions.json", declared)
    with pytest.raises(VcmbenchError, match=r"prediction for moved: found 100\.0% of"):
        score(further_board / "submissions/noisy", scoring(further_board, moved_release))


def test_a_transmission_that_fails_a_check_of_the_solver_does_not_count(
    further_board, moved_release, monkeypatch
):
    """Deep in a barrier the solver may not reach its own tolerance; H is scored all the same."""
    monkeypatch.setattr("vcmbench.transport.sweep.MEETING_TOLERANCE", -1.0)
    edit_json(
        further_board / "submissions/noisy/result-ood-moved.json",
        {"transmission.gates.passed": False},
    )
    record = score(
        further_board / "submissions/noisy", scoring(further_board, moved_release)
    ).further["ood-moved"]
    assert record.mae_mev > 0
    assert (record.log10_mae, record.transmission) == (None, {})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("result-ood-moved.json", {"dataset.devices": ["wire"]}, "ood-moved part of wires@0.3.0"),
        ("result-ood-moved.json", {"dataset.digest": 64 * "0"}, "result-ood-moved.json: dataset"),
        ("result-ood-moved.json", {"transmission.energy_stride": 4}, "without --quick"),
        ("result-ood-moved.json", {"hamiltonian.mae_mev": "x"}, "result-ood-moved.json: hamilt"),
        ("predictions.json", {"files": {}}, "predictions.json: files.moved: found nothing"),
    ],
)
def test_wrong_claims_of_a_further_part_are_named(
    further_board, moved_release, name, change, message
):
    folder = further_board / "submissions/noisy"
    edit_json(folder / name, change)
    with pytest.raises(VcmbenchError) as error:
        read_entry(folder, moved_release)
    assert message in str(error.value)


def test_a_part_that_the_release_lacks_is_named_with_the_closest(further_board, moved_release):
    folder = further_board / "submissions/noisy"
    (folder / "result-ood-moved.json").rename(folder / "result-ood-movd.json")
    with pytest.raises(VcmbenchError, match=r"result-ood-movd\.json: part.*'ood-moved'\?"):
        read_entry(folder, moved_release)
    for name in ("result-..json", "result-test.json", "result-.json", "result-ood_moved.json"):
        (folder / "result-ood-movd.json").rename(folder / name)
        with pytest.raises(VcmbenchError, match=f"'{re.escape(name)}': file: found a foreign file"):
            read_entry(folder, moved_release)
        (folder / name).rename(folder / "result-ood-movd.json")


def test_a_record_belongs_to_the_further_claims_too(further_board, moved_release):
    folder = further_board / "submissions/noisy"
    digest = read_entry(folder, moved_release).digest
    path = folder / "result-ood-moved.json"
    path.write_text(path.read_text() + " ")
    assert read_entry(folder, moved_release).digest != digest


def test_packing_again_without_a_part_takes_it_out(further_board, moved_release):
    folder, results = further_board / "submissions/noisy", further_board / "results"

    def packed(*further: str) -> list[str]:
        entry = pack(
            str(further_board / "predictions/noisy"),
            results / "noisy",
            folder,
            further=[results / f"noisy-{part}" for part in further],
            about=further_board / "about/noisy.yml",
            hosted="https://example.org/",
            release=moved_release,
        )
        assert set(entry.predictions.files) >= {"wire"}
        return sorted(path.name for path in folder.iterdir())

    three = ["predictions.json", "result.json", "submission.yml"]
    assert packed("ood-bulk") == sorted([*three, "result-ood-bulk.json"])
    assert packed() == three
    before = (folder / "predictions.json").read_bytes()
    edit_json(results / "noisy-ood-moved/result.json", {"dataset.part": "chosen"})
    with pytest.raises(VcmbenchError, match="found chosen, expected one of ood-bulk, ood-moved"):
        packed("ood-moved")
    (further_board / "predictions/noisy/bulk.zarr.zip").write_bytes(b"PK")
    with pytest.raises(VcmbenchError, match=r"bulk\.zarr\.zip"):
        packed("ood-bulk")
    assert (folder / "predictions.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["noisy"]


# --- hidden test ------------------------------------------------------------------------------


@pytest.mark.slow
def test_hidden_test_is_scored_with_the_private_labels_and_tells_no_device(tmp_path, release, wire):
    whole = tmp_path / "whole"
    write_device(
        whole / "devices/wire.zarr.zip", read_device(release.folder / "devices/wire.zarr.zip")
    )
    moved = wire.structure.moved(wire.structure.positions + 0.5)
    pattern = BlockPattern(moved, wire.basis, wire.pattern.pair, wire.pattern.shift)
    h, s = (BlockMatrix(pattern, matrix.values) for matrix in (wire.hamiltonian, wire.overlap))
    secret = replace(wire, id="secret", hamiltonian=h, overlap=s)
    write_device(whole / "devices/secret.zarr.zip", secret)
    write_device(whole / "leads/lead-tin.zarr.zip", release.lead("lead-tin"))
    parts = {"train": (), "test": ("wire",), "hidden": ("secret",)}
    complete = toy_release(whole, parts, name="wires", version="0.2.0")
    public = hide_devices(complete, ["secret"], tmp_path / "public", tmp_path / "private").public
    leaderboard = tmp_path / "leaderboard"
    entry = submit(
        leaderboard, "noisy", public, devices=("wire", "secret"), truth=complete, noise_ev=2e-3
    )
    assert set(entry.predictions.files) == {"wire", "secret"}
    options = scoring(leaderboard, public)
    assert score(entry.folder, options).hidden is None
    record = score(entry.folder, replace(options, private=tmp_path / "private"))
    assert record.hidden.n_devices == 1
    assert record.hidden.mae_mev == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.02)
    assert "secret" not in record_path(leaderboard, "noisy").read_text()
    assert set(record.transmission) == {"wire"}
    # A copy of the private labels is found too.
    write_predictions(
        leaderboard / "predictions/noisy", "secret",
        complete.device("secret").hamiltonian, gauge="fermi",
    )  # fmt: skip
    entry = pack(
        str(leaderboard / "predictions/noisy"),
        leaderboard / "results/noisy",
        entry.folder,
        about=leaderboard / "about/noisy.yml",
        hosted="https://example.org/",
        release=public,
    )
    with pytest.raises(VcmbenchError, match="prediction for secret"):
        score(entry.folder, replace(options, private=tmp_path / "private"))


# --- download ---------------------------------------------------------------------------------


@pytest.fixture
def served(leaderboard, monkeypatch):
    """The predictions behind an address; requests to the host of the submission go there."""
    folder = leaderboard / "predictions/noisy"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(folder), **options)

        def log_message(self, *_arguments):
            pass

        def do_GET(self):
            if self.path.startswith("/away/"):
                self.send_response(302)
                self.send_header("Location", "http://example.org/x")
                self.end_headers()
                return
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    build = urllib.request.build_opener

    class Rewrite(urllib.request.BaseHandler):
        handler_order = 100

        def https_open(self, request):
            path = request.selector.removeprefix("/predictions")
            return build_plain().open(f"http://127.0.0.1:{server.server_port}{path}")

    def build_plain():
        return build(Stop)

    class Stop(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_arguments):
            return None

        def http_error_302(self, request, handle, code, message, headers):
            return handle

    monkeypatch.setattr(urllib.request, "build_opener", lambda *h: build(Rewrite, *h))
    yield
    server.shutdown()
    server.server_close()


def test_predictions_are_fetched_from_their_address(leaderboard, release, served):
    entry = read_entry(leaderboard / "submissions/noisy", release)
    target = leaderboard / "download"
    fetch_predictions(entry, target, lambda *_: None)
    assert check_predictions(entry, target, release) == []


def test_no_more_is_fetched_than_was_declared(leaderboard, release, served):
    entry = read_entry(leaderboard / "submissions/noisy", release)
    store = store_of(leaderboard)
    store.write_bytes(store.read_bytes() + b"x")
    with pytest.raises(VcmbenchError, match="size: found more"):
        fetch_predictions(entry, leaderboard / "download", lambda *_: None)
    store.write_bytes(store.read_bytes()[:-10])
    with pytest.raises(VcmbenchError, match="size: found"):
        fetch_predictions(entry, leaderboard / "download", lambda *_: None)
    assert list((leaderboard / "download").iterdir()) == []


def test_a_redirect_away_from_https_is_refused(leaderboard, release, served):
    edit_json(
        leaderboard / "submissions/noisy/predictions.json",
        {"hosting.base": "https://example.org/away/"},
    )
    entry = read_entry(leaderboard / "submissions/noisy", release)
    with pytest.raises(VcmbenchError, match="redirect: found http://"):
        fetch_predictions(entry, leaderboard / "download", lambda *_: None)


def test_predictions_are_fetched_from_a_commit_of_the_hub(leaderboard, release):
    pytest.importorskip("huggingface_hub")
    code = """
import sys
from pathlib import Path
from vcmbench.leaderboard.gather import fetch_predictions
from vcmbench.leaderboard.validate import read_entry
from vcmbench.release import Release
entry = read_entry(Path(sys.argv[1]), Release.open(Path(sys.argv[2])))
fetch_predictions(entry, Path(sys.argv[3]), lambda *_: None)
"""
    folder, target = leaderboard / "submissions/noisy", leaderboard / "download"
    with serve_hub() as hub:
        commit = hub.add("me/predictions", {"wire.zarr.zip": store_of(leaderboard).read_bytes()})
        hosting = {"kind": "hub", "repo": "me/predictions", "revision": commit}
        edit_json(folder / "predictions.json", {"hosting": hosting})
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment = {
            **inherited,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(leaderboard / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        arguments = [sys.executable, "-c", code, folder, release.folder, target]
        subprocess.run(arguments, env=environment, check=True)
        assert check_predictions(read_entry(folder, release), target, release) == []
        edit_json(folder / "predictions.json", {"files.wire.size": 7})
        shutil.rmtree(target)
        refused = subprocess.run(
            arguments, env=environment, check=False, capture_output=True, text=True
        )
        assert "expected 7" in refused.stderr
        assert not target.exists()


# --- the commands -----------------------------------------------------------------------------


def run_command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def own_model(tmp_path) -> Path:
    """A model directory as a user has one: the weights of a baseline under another name."""
    folder = tmp_path / "my_model"
    shutil.copytree(known_baselines()["species-mean"], folder)
    card = (folder / "model.yml").read_text()
    (folder / "model.yml").write_text(card.replace("name: species-mean", "name: My_Model"))
    return folder


def test_a_model_directory_from_evaluation_to_the_record(own_model, release, tmp_path):
    result, board = tmp_path / "result", tmp_path / "leaderboard"
    target, at = board / "submissions/my-model", ("--release", release.folder)
    run_command("evaluate", own_model, "--dataset", release.folder, "--output", result)
    about = tmp_path / "about.yml"
    about.write_text("code_license: MIT\n")
    pack = ("submit", "pack", own_model, "--result", result, "--output", target, *at)
    told = run_command(*pack, "--about", about, "--hosted", "https://example.org/x/")
    assert told.startswith("my-model: ")
    entry = read_entry(target, release)
    assert entry.submission.weights_license == "CC-BY-4.0"
    assert [d.label for d in entry.submission.training.datasets] == ["vcm-nano@1.0.0"]
    predictions = ("--predictions", result / "predictions")
    assert "in good order" in run_command("leaderboard", "validate", target, *predictions, *at)
    told = run_command(
        "leaderboard", "score", target, *predictions, *at,
        "--leaderboard", board, "--work", tmp_path / "work",
    )  # fmt: skip
    assert told.startswith("my-model: MAE ")
    assert read_record(record_path(board, "my-model")).submission_digest == entry.digest
    # Weights that changed since are other weights.
    (own_model / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(VcmbenchError, match="evaluate the model as it is now"):
        run_command(*pack, "--about", about, "--hosted", "https://example.org/x/")


def test_packing_names_everything_that_is_missing(own_model, leaderboard, release, tmp_path):
    pack = (
        "submit", "pack", leaderboard / "predictions/noisy",
        "--result", leaderboard / "results/noisy", "--release", release.folder,
    )  # fmt: skip
    with pytest.raises(VcmbenchError) as error:
        run_command(*pack)
    for field in ("name", "authors", "code_license", "weights_license", "training", "cutoff_ang"):
        assert f"--about: {field}: found nothing" in str(error.value)
    about = ("--about", leaderboard / "about/noisy.yml")
    with pytest.raises(VcmbenchError, match="--hosted: predictions: found nothing"):
        run_command(*pack, *about)
    for hosted in ("hub:me/x@main", "http://example.org/", "hub:me@" + 40 * "a", "ftp://x/"):
        with pytest.raises(VcmbenchError, match="--hosted: predictions: found"):
            run_command(*pack, *about, "--hosted", hosted)


@pytest.mark.slow
def test_a_baseline_is_predicted_anew(release, tmp_path):
    board, work = tmp_path / "leaderboard", tmp_path / "work"
    target, at = board / "submissions/species-mean", ("--release", release.folder)
    run_command("evaluate", "species-mean", "--dataset", release.folder, "--output", work)
    told = run_command("submit", "pack", "species-mean", "--result", work, "--output", target, *at)
    assert told.startswith("species-mean: ")
    assert read_entry(target, release).predictions.files == {}
    run_command("leaderboard", "score", target, *at, "--leaderboard", board, "--work", tmp_path)
    assert read_record(record_path(board, "species-mean")).result.model.kind == "baseline"
    edit_json(target / "predictions.json", {"hosting.model_digest": 64 * "0"})
    edit_json(target / "result.json", {"model.digest": 64 * "0"})
    with pytest.raises(VcmbenchError, match="baseline species-mean: digest"):
        score(target, Scoring(board, tmp_path / "species-mean", release=release))
