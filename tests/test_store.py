"""Stores: round trip, fixed-point error, atomic writes and every kind of damage."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import zarr
from test_blocks import BASIS, make_structure, random_matrix

from vcmbench.device import Device, Provenance, TransportReference
from vcmbench.errors import VcmbenchError
from vcmbench.store import (
    content_digest,
    read_device,
    read_predictions,
    write_device,
    write_predictions,
)
from vcmbench.store.content import Content, read_content, write_content


@pytest.fixture
def device() -> Device:
    matrix = random_matrix(make_structure())
    return Device(
        "toy", "bulk", matrix, matrix.with_values(matrix.values / 10), Provenance(code="random")
    )


@pytest.fixture
def path(tmp_path, device):
    path = tmp_path / "toy.zarr.zip"
    write_device(path, device)
    return path


def test_round_trip_to_fixed_point(path, device):
    again = read_device(path)
    assert np.abs(again.hamiltonian.values - device.hamiltonian.values).max() <= 0.5e-6
    assert np.abs(again.overlap.values - device.overlap.values).max() <= 0.5e-8
    assert np.array_equal(again.structure.positions, device.structure.positions)
    assert np.array_equal(again.structure.is_ghost, device.structure.is_ghost)
    assert again.basis.shells == BASIS.shells
    assert again.provenance == device.provenance
    assert content_digest(again) == content_digest(device)
    write_device(path, again)
    twice = read_device(path)
    assert np.array_equal(twice.hamiltonian.values, again.hamiltonian.values)


def test_transport_reference_round_trip(path, device):
    reference = TransportReference(
        lead="lead",
        energies_ev=np.linspace(-1, 1, 5),
        kpoints=np.array([[0, 0.25, 0.25], [0, 0.25, -0.25]]),
        weights=np.array([0.5, 0.5]),
        transmission=np.logspace(-12, 0, 10).reshape(2, 5),
        floors={"rounding": {"mean": 1e-4, "max": 1e-3}},
    )
    write_device(path, replace(device, transport=reference))
    again = read_device(path).transport
    assert again.lead == "lead"
    assert again.floors == reference.floors
    assert np.array_equal(again.transmission, reference.transmission)
    np.testing.assert_allclose(again.mean, reference.transmission.mean(axis=0))


def test_equal_content_gives_equal_bytes(path, device, tmp_path):
    write_device(tmp_path / "again.zarr.zip", device)
    assert (tmp_path / "again.zarr.zip").read_bytes() == path.read_bytes()


def test_digest_changes_with_one_entry(path, device):
    values = device.hamiltonian.values.copy()
    values[0] += 1e-6
    other = replace(device, hamiltonian=device.hamiltonian.with_values(values))
    assert content_digest(other) != content_digest(device)


def test_every_flipped_payload_bit_is_found(path, device):
    """Any damage inside a stored chunk or its metadata is an error or leaves the content equal."""
    original = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start_of_directory = archive.start_dir
    digest = content_digest(device)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(original)
        damaged[rng.integers(start_of_directory)] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert content_digest(read_device(path)) == digest
        except VcmbenchError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_truncated_store_is_refused(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(VcmbenchError, match=r"toy\.zarr\.zip: corrupt or truncated"):
        read_device(path)


def test_missing_chunk_is_refused_not_read_as_zero(path, tmp_path):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "toy.zarr")
    assert read_device(tmp_path / "toy.zarr").id == "toy"
    (tmp_path / "toy.zarr/blocks/hamiltonian/c/0").unlink()
    with pytest.raises(VcmbenchError, match=r"blocks/hamiltonian: 1 of 1 chunks are missing"):
        read_device(tmp_path / "toy.zarr")


def test_interrupted_write_leaves_the_old_store(path, device, monkeypatch):
    before = path.read_bytes()

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_device(path, device)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def edited(path, edit):
    """Rewrite a store with its content changed by `edit(arrays, attributes)`."""
    content = read_content(path)
    arrays, attributes = dict(content.arrays), json.loads(json.dumps(content.attributes))
    edit(arrays, attributes)
    write_content(path, Content(arrays, attributes))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda _a, t: t[""].pop("schema_version"), "schema_version: Field required"),
        (lambda _a, t: t[""].update(schema_version=99), "schema_version: Input should be 1"),
        (lambda _a, t: t[""].update(kind="toy"), "kind: Input should be 'device' or 'bulk'"),
        (lambda a, _t: a.pop("blocks/overlap"), "array 'blocks/overlap' is missing"),
        (
            lambda _a, t: t["basis"]["shells"].update(O=[0, 2]),
            r"entries of block 0.*expected 6 x 6",
        ),
        (lambda _a, t: t.pop("blocks/hamiltonian"), "hamiltonian: scale_factor: found none"),
        (lambda a, _t: a.update({"blocks/pair": a["blocks/pair"] + 12}), r"expected indices in 0"),
    ],
)
def test_wrong_content_is_named(path, edit, message):
    edited(path, edit)
    with pytest.raises(VcmbenchError, match=message) as caught:
        read_device(path)
    assert str(path) in str(caught.value)


def test_a_device_needs_full_provenance_and_the_fermi_gauge(device):
    with pytest.raises(VcmbenchError, match=r"toy: provenance: found no code_version, .*expected"):
        replace(device, kind="device")


def test_out_of_range_entry_is_refused(path, device):
    values = device.hamiltonian.values.copy()
    values[3] = 1e5
    broken = replace(device, hamiltonian=device.hamiltonian.with_values(values))
    with pytest.raises(VcmbenchError, match=r"largest entry: found 100000\.0"):
        write_device(path, broken)


class TestPredictions:
    @pytest.mark.parametrize("directed", [False, True])
    def test_round_trip(self, tmp_path, device, directed):
        matrix = device.hamiltonian.directed() if directed else device.hamiltonian
        write_predictions(tmp_path, "toy", matrix, gauge="fermi", model="me")
        again = read_predictions(tmp_path, device)
        assert again.pattern.directed == directed
        np.testing.assert_allclose(again.values, matrix.values, atol=0.5e-6)

    def test_foreign_float32_directory_store(self, tmp_path, device):
        """A store made with nothing but zarr and the device's own arrays."""
        root = zarr.open_group(tmp_path / "toy.zarr", mode="w", zarr_format=3)
        root.attrs.update({"schema_version": 1, "id": "toy", "gauge": "fermi"})
        pattern = device.pattern
        for name in ("pair", "shift", "offset"):
            root.create_array(f"blocks/{name}", data=getattr(pattern, name))
        values = device.hamiltonian.values.astype(np.float32)
        root.create_array("blocks/hamiltonian", data=values)
        assert np.array_equal(read_predictions(tmp_path, device).values, values.astype(float))

    def test_missing_device(self, tmp_path, device):
        with pytest.raises(VcmbenchError, match="no predictions for device 'toy'"):
            read_predictions(tmp_path, device)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda _a, t: t[""].pop("gauge"), "gauge: found undeclared, expected 'fermi'"),
            (lambda _a, t: t[""].update(gauge="raw"), "gauge: found raw, expected fermi"),
            (lambda _a, t: t[""].update(units={"energy": "Ha"}), "energy: found Ha, expected eV"),
            (lambda _a, t: t[""].update(id="other"), "id: found 'other', expected 'toy'"),
            (lambda a, _t: a.update({"blocks/pair": a["blocks/pair"] + 12}), "expected indices"),
            (
                lambda a, _t: a.update({"blocks/offset": 2 * a["blocks/offset"]}),
                r"offset: entries of block 0 .*orbitals",
            ),
            (
                lambda a, _t: a.update({"blocks/hamiltonian": a["blocks/hamiltonian"] * np.nan}),
                "found nan in block 0",
            ),
            (
                lambda a, _t: a.update({"blocks/hamiltonian": a["blocks/hamiltonian"][:-1]}),
                "values: found shape",
            ),
        ],
    )
    def test_bad_predictions_are_named(self, tmp_path, device, edit, message):
        path = write_predictions(tmp_path, "toy", device.hamiltonian, gauge="fermi")
        edited(path, edit)
        with pytest.raises(VcmbenchError, match=message) as caught:
            read_predictions(tmp_path, device)
        assert str(path) in str(caught.value)
