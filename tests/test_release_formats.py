"""What others read of a release: Parquet through `datasets`, Croissant, front matter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml

from vcmbench.errors import VcmbenchError
from vcmbench.release.index import IndexRow, index_bytes, index_rows, records

LOAD = """
import json, sys
from datasets import load_dataset
table = load_dataset(sys.argv[1], split="devices")
few = table.filter(lambda row: row["part"] == "train" and row["n_vacancies"] > 2)
print(json.dumps([table[:], few["id"][:], load_dataset(sys.argv[1]).column_names]))
"""


def test_datasets_loads_the_index_offline(demo, tmp_path):
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "home"),
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(demo.folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    table, few, names = json.loads(done.stdout.splitlines()[-1])
    assert few == ["device-a"]
    assert list(names) == ["devices"]
    assert [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)] == (
        records(index_rows(demo))
    )


def test_index_says_what_the_stores_say(demo):
    rows = pq.read_table(demo.folder / "index.parquet").to_pylist()
    assert rows == records(index_rows(demo))
    first = rows[0]
    device = demo.device("device-a")
    assert first["n_entries"] == device.pattern.n_entries
    assert first["fermi_energy_ev"] == device.provenance.fermi_energy_ev
    assert [first[f"n_{symbol}"] for symbol in ("hf", "n", "o", "ti")] == [26, 96, 48, 120]
    assert first["n_vacancies"] == 4
    assert first["oxide_thickness_ang"] == pytest.approx(15.2, abs=0.1)
    assert first["kpoint_mesh"] == "1x2x2"
    assert first["n_energies"] == 201
    assert first["digest"] == demo.manifest.devices["device-a"].digest
    assert first["sha256"] == demo.manifest.files[first["store"]].sha256


def test_columns_have_types_even_where_all_values_are_missing(demo):
    row = index_rows(demo)[0]
    empty = row.model_copy(update={"scf_steps": None, "part": None, "oxide_thickness_ang": None})
    schema = pq.read_schema(io.BytesIO(index_bytes([empty])))
    types = {name: str(schema.field(name).type) for name in schema.names}
    assert types["scf_steps"] == "int64"
    assert types["part"] == "string"
    assert types["oxide_thickness_ang"] == "double"
    assert types["withheld"] == "bool"
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)
    assert all(field.description for name, field in IndexRow.model_fields.items())


def test_croissant_is_valid_and_its_records_are_the_index(demo):
    dataset = mlcroissant.Dataset(jsonld=str(demo.folder / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert not issues.warnings
    metadata = dataset.metadata
    assert (metadata.name, str(metadata.version)) == ("vcm-demo", "1.0.0")
    checksums = {item.uuid: item.sha256 for item in metadata.distribution}
    listed = {name: entry.sha256 for name, entry in demo.manifest.files.items()}
    described = set(listed) - {"README.md", "croissant.json"}
    assert checksums == {name: listed[name] for name in described}
    found = list(dataset.records("devices"))
    expected = records(index_rows(demo))
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found, strict=True):
        plain = {
            name.removeprefix("devices/"): v.decode() if isinstance(v, bytes) else v
            for name, v in theirs.items()
        }
        assert plain == ours


def test_front_matter_points_at_the_index(demo):
    text = (demo.folder / "README.md").read_text()
    content = yaml.safe_load(text.split("---")[1])
    assert content["license"] == "cc-by-4.0"
    assert content["size_categories"] == ["n<1K"]
    assert content["configs"][0]["data_files"] == [{"split": "devices", "path": "index.parquet"}]
    assert (demo.folder / "index.parquet").is_file()


def test_card_has_numbers_for_every_marker(demo):
    text = (demo.folder / "README.md").read_text()
    assert "| `device-a` | 2052 | 94973 | 4645580 | 9.91 | 1.07 |" in text
    assert "| `device-b` | 2532 | 40 | 9.8e-07 | 1e-06 | 13.4212 |" in text
    assert "None." not in text


def test_without_pyarrow_the_extra_is_named(demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(VcmbenchError, match=r"pip install 'vcmbench\[release\]'"):
        index_bytes(index_rows(demo))
