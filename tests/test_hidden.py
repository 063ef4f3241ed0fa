"""A hidden test set: nothing leaks, the halves join bit for bit, foreign halves are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from release_toys import record_of, toy_release
from typer.testing import CliRunner

from vcmbench.blocks import BlockMatrix, BlockPattern
from vcmbench.cli import app
from vcmbench.device import PRIVATE_PROVENANCE, SUPPORT_ANG, contact_blocks
from vcmbench.documents import write_json
from vcmbench.errors import VcmbenchError
from vcmbench.evaluate import Request, run
from vcmbench.fit import fit
from vcmbench.release import Release, verify_release
from vcmbench.release.hidden import hide_devices, join_release
from vcmbench.release.manifest import release_files
from vcmbench.store import content_digest, read_device, write_device, write_predictions
from vcmbench.store.content import Content, read_content, write_content
from vcmbench.store.device import encode


@pytest.fixture(scope="module")
def whole(tmp_path_factory, demo, wire) -> Release:
    """A release whose test device is small but has contacts, T(E), floors and an input text."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    provenance = wire.provenance.model_copy(
        update={
            "input_text": "&GLOBAL secret &END",
            "fermi_energy_ev": 7.123456789,
            "scf_steps": 77,
        }
    )
    floor = {"mean": 1e-4, "p95": 5e-4, "max": 1e-3, "energies": 2}
    reference = replace(wire.transport, floors={"rounding": floor})
    secret = replace(wire, provenance=provenance, transport=reference)
    write_device(folder / "devices/wire.zarr.zip", secret)
    write_device(folder / "devices/bulk.zarr.zip", replace(demo.lead("lead-tin"), id="bulk"))
    write_device(folder / "leads/lead-tin.zarr.zip", demo.lead("lead-tin"))
    for name in ("one", "two"):
        bulk = replace(demo.lead("lead-tin"), id=name)
        structure = bulk.structure.moved(bulk.structure.positions + 0.9)
        pattern = BlockPattern.from_structure(structure, bulk.basis, SUPPORT_ANG)
        matrix = BlockMatrix.zeros(pattern)
        write_device(
            folder / f"devices/{name}.zarr.zip", replace(bulk, hamiltonian=matrix, overlap=matrix)
        )
    for name in ("devices/wire", "devices/bulk", "leads/lead-tin"):
        record = record_of(folder / f"{name}.zarr.zip")
        write_json(folder / "records" / f"{record.id}.json", record)
    return toy_release(folder, {"train": ("bulk",), "test": ("wire",), "ood-thick": ("one", "two")})


@pytest.fixture(scope="module")
def halves(tmp_path_factory, whole) -> tuple[Release, Path]:
    folder = tmp_path_factory.mktemp("halves")
    made = hide_devices(whole, ["wire"], folder / "public", folder / "private")
    return made.public, folder / "private"


@pytest.fixture
def copies(halves, tmp_path) -> tuple[Path, Path]:
    """Halves to tamper with."""
    public, private = tmp_path / "public", tmp_path / "private"
    shutil.copytree(halves[0].folder, public)
    shutil.copytree(halves[1], private)
    return public, private


def test_public_half_is_a_release_of_the_same_data(whole, halves):
    public = halves[0]
    assert verify_release(public) == []
    assert public.label == whole.label
    assert public.manifest.digest == whole.manifest.digest
    assert public.split().release.digest == whole.manifest.digest
    entry = public.manifest.devices["wire"]
    assert entry.complete_digest == whole.manifest.devices["wire"].digest != entry.digest
    attributes = read_content(public.folder / entry.path).attributes[""]
    assert attributes["public_half"]["hamiltonian"] == "withheld"
    assert public.manifest.devices["bulk"] == whole.manifest.devices["bulk"]
    records = {name for name in public.manifest.files if name.startswith("records/")}
    assert records == {"records/bulk.json", "records/lead-tin.json"}


def test_public_half_shows_what_a_model_may_see(whole, halves):
    ours, public = whole.device("wire"), halves[0].device("wire")
    assert public.is_withheld
    assert not ours.is_withheld
    assert np.array_equal(public.structure.positions, ours.structure.positions)
    assert np.array_equal(public.structure.region, ours.structure.region)
    assert np.array_equal(public.overlap.values, ours.overlap.values)
    assert public.basis == ours.basis
    assert public.lead == "lead-tin"
    assert public.transport is None
    expected = ours.hamiltonian.select(contact_blocks(ours.pattern))
    assert np.array_equal(public.hamiltonian.contacts.values, expected.values)
    assert content_digest(public) == halves[0].manifest.devices["wire"].digest


@pytest.mark.parametrize(
    "ask",
    [
        lambda d: d.hamiltonian.values,
        lambda d: d.hamiltonian.to_csr(),
        lambda d: d.hamiltonian.truncate(8.0),
        lambda d: d.hamiltonian.align(d.pattern),
        lambda d: d.hamiltonian + d.overlap,
        lambda d: d.overlap + d.hamiltonian,
        lambda d: d.hamiltonian * 2.0,
        lambda d: d.hamiltonian.directed(),
        lambda d: d.hamiltonian.symmetrise(),
        lambda d: d.hamiltonian.slab(d.pattern.slabs[0]),
        lambda d: d.overlap.replaced(d.hamiltonian, d.pattern.is_onsite),
    ],
)
def test_asking_for_the_hamiltonian_is_refused(halves, ask):
    with pytest.raises(VcmbenchError, match="wire: hamiltonian: found withheld"):
        ask(halves[0].device("wire"))


def test_public_half_contains_no_hamiltonian(demo, tmp_path):
    """Neither entries, transmission, Fermi level nor input, in any array, attribute or file."""
    public = hide_devices(demo, ["device-b"], tmp_path / "public", tmp_path / "private").public
    device, path = demo.device("device-b"), public.manifest.devices["device-b"].path
    content = read_content(public.folder / path)
    assert "blocks/hamiltonian" not in content.arrays
    assert not any(name.startswith("transport/") for name in content.arrays)
    interior = device.pattern.entry_mask(~contact_blocks(device.pattern))
    secret = encode(device).arrays["blocks/hamiltonian"][interior]
    stored = [np.ascontiguousarray(array).tobytes() for array in content.arrays.values()]
    large = np.abs(secret) > 100  # zeros and tiny entries recur everywhere
    starts = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(large, 8).all(axis=1))
    for start in np.random.default_rng(0).choice(starts, 40).tolist():
        window = secret[start : start + 8].tobytes()
        assert not any(window in blob for blob in stored)
    provenance, transmission = device.provenance, device.transport.transmission
    assert f"{provenance.fermi_energy_ev:.4f}" in (demo.folder / "README.md").read_text()
    texts = [
        provenance.input_text[:40].encode(),
        f"{provenance.fermi_energy_ev:.4f}".encode(),
        np.float64(provenance.fermi_energy_ev).tobytes(),
        transmission[0, 50:54].tobytes(),
        secret[np.abs(secret) > 10**6][:8].tobytes(),
    ]
    for name in ("manifest.json", *release_files(public.folder)):
        blob = (public.folder / name).read_bytes()
        for text in texts:
            assert text not in blob or name == "devices/device-a.zarr.zip", (name, text)
    for name in PRIVATE_PROVENANCE:
        assert content.attributes[""]["provenance"][name] is None


def test_scores_and_fits_on_the_public_half_are_refused(whole, halves, tmp_path, monkeypatch):
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path / "cache"))
    device = halves[0].device("wire")
    truth = whole.device("wire").hamiltonian
    write_predictions(tmp_path / "mine", "wire", truth, gauge="fermi")
    request = Request(
        model=str(tmp_path / "mine"), dataset=str(halves[0].folder), output=tmp_path / "out"
    )
    with pytest.raises(VcmbenchError, match=r"withheld.*vcmbench data join"):
        run(request)
    assert not (tmp_path / "out/result.json").exists()
    with pytest.raises(VcmbenchError, match="withheld"):
        fit("species-mean", halves[0], [device.id], tmp_path / "model")


def test_halves_join_bit_for_bit_and_can_be_scored(whole, halves, tmp_path, monkeypatch):
    monkeypatch.setenv("VCMBENCH_CACHE", str(tmp_path / "cache"))
    joined = join_release(halves[0], halves[1], tmp_path / "joined")
    assert verify_release(joined) == []
    assert joined.manifest.digest == whole.manifest.digest
    for device_id, entry in whole.manifest.devices.items():
        assert content_digest(joined.device(device_id)) == entry.digest
    ours, again = whole.device("wire"), joined.device("wire")
    assert np.array_equal(again.hamiltonian.values, ours.hamiltonian.values)
    assert np.array_equal(again.transport.transmission, ours.transport.transmission)
    assert again.transport.floors == ours.transport.floors
    assert again.provenance == ours.provenance
    for name in ("manifest.json", *release_files(whole.folder)):
        assert (joined.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    write_predictions(tmp_path / "mine", "wire", ours.hamiltonian, gauge="fermi")
    request = Request(
        model=str(tmp_path / "mine"), dataset=str(joined.folder), output=tmp_path / "out"
    )
    assert run(request).result.hamiltonian.mae_full_mev == 0


def edited(path: Path, edit) -> None:
    content = read_content(path)
    arrays, attributes = dict(content.arrays), json.loads(json.dumps(content.attributes))
    edit(arrays, attributes)
    write_content(path, Content(arrays, attributes))


def one_entry_more(arrays, _attributes):
    values = arrays["blocks/hamiltonian"].copy()
    values[17] += 1
    arrays["blocks/hamiltonian"] = values


class TestTampered:
    """Whatever is changed in either half, joining stops, names it and leaves nothing."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, tmp_path):
        yield
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))

    def join(self, copies, tmp_path):
        join_release(Release.open(copies[0]), copies[1], tmp_path / "out")

    def test_private_entry(self, copies, tmp_path):
        edited(copies[1] / "devices/wire.zarr.zip", one_entry_more)
        with pytest.raises(VcmbenchError, match=r"private/devices/wire.* content digest: found"):
            self.join(copies, tmp_path)

    def test_private_entry_with_its_digest(self, copies, tmp_path):
        """Someone who adapts private.json as well still meets the digest of the whole."""
        path = copies[1] / "devices/wire.zarr.zip"
        edited(path, one_entry_more)
        manifest = json.loads((copies[1] / "private.json").read_text())
        manifest["devices"]["wire"]["digest"] = read_content(path).digest()
        (copies[1] / "private.json").write_text(json.dumps(manifest))
        with pytest.raises(VcmbenchError, match=r"private/devices/wire.* content digest: found"):
            self.join(copies, tmp_path)

    def test_private_provenance(self, copies, tmp_path):
        edited(
            copies[1] / "devices/wire.zarr.zip",
            lambda _a, t: t[""]["provenance"].update(fermi_energy_ev=1.0),
        )
        with pytest.raises(VcmbenchError, match="content digest"):
            self.join(copies, tmp_path)

    def test_public_overlap(self, copies, tmp_path):
        path = copies[0] / "devices/wire.zarr.zip"
        edited(path, lambda a, _t: a.update({"blocks/overlap": a["blocks/overlap"] * 2}))
        with pytest.raises(VcmbenchError, match=r"public/devices/wire.zarr.zip: found content dig"):
            self.join(copies, tmp_path)

    def test_another_release(self, copies, tmp_path, demo):
        with pytest.raises(VcmbenchError, match=r"private\.json: release: digest: found .*\(toy\)"):
            join_release(demo, copies[1], tmp_path / "out")

    def test_missing_private_store(self, copies, tmp_path):
        (copies[1] / "devices/wire.zarr.zip").unlink()
        with pytest.raises(VcmbenchError, match=r"wire.zarr.zip: no such store"):
            self.join(copies, tmp_path)

    def test_swapped_halves(self, halves, tmp_path):
        with pytest.raises(VcmbenchError, match=r"private\.json: cannot be read"):
            join_release(halves[0], halves[0].folder, tmp_path / "out")


def test_a_private_half_is_no_device(halves):
    with pytest.raises(VcmbenchError, match=r"wire\.zarr\.zip: attribute"):
        read_device(halves[1] / "devices/wire.zarr.zip")


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "found no device to withhold"),
        (["wier"], "unknown device of toy@1.0.0 'wier'; did you mean 'wire'"),
        (["bulk"], "bulk: found part 'train', expected a test part"),
        (["one"], "one: found siblings that stay public: two, expected whole families"),
    ],
)
def test_wrong_request_is_refused(whole, tmp_path, devices, message):
    with pytest.raises(VcmbenchError, match=message):
        hide_devices(whole, devices, tmp_path / "public", tmp_path / "private")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("public", "private"), [("half", "half"), ("half", "half/b"), ("half/b", "half")]
)
def test_a_half_within_the_other_is_refused(whole, tmp_path, public, private):
    with pytest.raises(VcmbenchError, match="folder: found within"):
        hide_devices(whole, ["wire"], tmp_path / public, tmp_path / private)
    assert not list(tmp_path.iterdir())


def test_a_half_within_the_release_is_refused(whole, tmp_path):
    with pytest.raises(VcmbenchError, match="folder: found within"):
        hide_devices(whole, ["wire"], tmp_path / "public", whole.folder / "private")
    assert not list(tmp_path.iterdir())


def test_only_the_owner_reads_the_private_half(halves):
    assert halves[1].stat().st_mode & 0o077 == 0


def test_withheld_twice_is_refused(halves, tmp_path):
    with pytest.raises(VcmbenchError, match="wire: hamiltonian: found withheld"):
        hide_devices(halves[0], ["wire"], tmp_path / "public", tmp_path / "private")
    assert not list(tmp_path.iterdir())


def test_commands(whole, tmp_path):
    runner = CliRunner()
    public, private, joined = (str(tmp_path / name) for name in ("public", "private", "joined"))
    hide = ["data", "hide", str(whole.folder), "--devices", "wire", "--public", public]
    outcome = runner.invoke(app, [*hide, "--private", private])
    assert outcome.exit_code == 0
    assert "wire withheld" in " ".join(outcome.output.split())
    again = runner.invoke(app, [*hide, "--private", private])
    assert "public: folder: found one that exists" in str(again.exception)
    described = json.loads(runner.invoke(app, ["data", "info", public, "--json"]).stdout)
    assert described["withheld"] == 1
    row = next(row for row in described["devices"] if row["id"] == "wire")
    assert row["withheld"]
    assert row["fermi_energy_ev"] is None
    assert row["lead"] == "lead-tin"
    assert runner.invoke(app, ["data", "splits", public]).exit_code == 0
    assert runner.invoke(app, ["data", "join", public, private, joined]).exit_code == 0
    assert runner.invoke(app, ["data", "verify", joined]).exit_code == 0
