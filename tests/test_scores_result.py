"""The schema of result.json: strict, free of NaN, described and published."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError
from score_toys import make_device, make_pattern, random_operator

from vcmbench.errors import VcmbenchError
from vcmbench.scores import hamiltonian, spectrum, transmission
from vcmbench.scores.result import (
    DatasetInfo,
    DeviceTransmission,
    Environment,
    Equivariance,
    ModelInfo,
    PhysicalitySection,
    Residual,
    Result,
    StageRecord,
    ThroughputGates,
    ThroughputSection,
    Timing,
    Unavailable,
    json_schema,
    read_result,
    schema_text,
)
from vcmbench.transport import Gates


@pytest.fixture(scope="module")
def result() -> Result:
    device = make_device(make_pattern(n_sites=8))
    predicted = device.hamiltonian + random_operator(device.pattern, seed=3, scale=0.01)
    error = hamiltonian.device_errors(
        "toy",
        device.hamiltonian,
        device.overlap,
        hamiltonian.align(predicted, device.pattern),
    )
    errors = hamiltonian.score_devices([error], reference_mae_mev=20.0)
    kpoints = np.array([[0.0, 0.25, 0.25]])
    levels = spectrum.device_levels(device.hamiltonian, device.overlap, kpoints)
    energies = np.linspace(-1, 1, 11)
    curve = transmission.Curve(energies, np.full(11, 1e-3))
    agreement = transmission.compare(curve, curve)
    residual = Residual(largest=1e-12, mean=1e-13)
    timing = Timing(
        cutoff_ang=8.0,
        median_s=1.0,
        iqr_s=0.1,
        fastest_s=0.9,
        n_repeats=5,
        n_warmup=4,
        stable=True,
        atoms_per_s=8.0,
        edges_per_s=100.0,
        nonzeros_per_s=1000.0,
    )
    return Result(
        model=ModelInfo(name="toy", kind="baseline"),
        dataset=DatasetInfo(
            name="d", version="1.0.0", digest="0" * 64, split="s", part="test", devices=["toy"]
        ),
        hamiltonian=errors,
        spectrum=spectrum.score_devices({"toy": spectrum.compare_levels(levels, levels, [1.0])}),
        transmission=transmission.score_devices(
            {
                "toy": DeviceTransmission(
                    **agreement.model_dump(),
                    all_predicted=Unavailable(reason="not asked for"),
                    noise_floor=transmission.noise_floor(curve, {}),
                    gates=transmission.gates(Gates(0.0, 0.0, 0.0, 0.0)),
                    conductance_g0=1e-3,
                    predicted_conductance_g0=1e-3,
                    n_energies=11,
                    n_kpoints=1,
                )
            }
        ),
        physicality=PhysicalitySection(
            hermiticity=errors.hermiticity,
            equivariance=Equivariance(
                rotation=residual,
                inversion=residual,
                permutation=residual,
                translation=residual,
                reimaging=residual,
                n_sites=8,
                device="toy",
                seed=0,
            ),
        ),
        throughput=ThroughputSection(
            accelerator="cpu",
            accelerator_name="toy",
            threads=1,
            device="toy",
            n_sites=8,
            n_edges=100,
            n_nonzeros=1000,
            atoms_per_s=8.0,
            edges_per_s=100.0,
            nonzeros_per_s=1000.0,
            peak_memory_bytes=1,
            peak_memory_kind="resident increment",
            cold_start_s=2.0,
            near=timing,
            full=timing,
            stages_s=None,
            gates=ThroughputGates(
                mae_mev=1.0, accuracy=True, equivariance_residual=1e-12, equivariance=True
            ),
            counts=True,
        ),
        environment=Environment.collect(
            [StageRecord(name="load", wall_s=0.1, peak_memory_bytes=10, cached=False)]
        ),
    )


def test_the_promised_fields_are_there(result):
    data = json.loads(result.to_json())
    assert data["score_spec"] == data["schema_version"] == 1
    promised = {
        "hamiltonian": ["mae_mev", "mae_full_mev", "by_pair"],
        "transmission": ["log10_mae", "log10_p95", "conductance_log10_error", "noise_floor"],
        "throughput": ["atoms_per_s", "edges_per_s", "peak_memory_bytes"],
        "spectrum": ["mae_mev"],
        "physicality": ["hermiticity"],
        "model": ["name"],
        "dataset": ["version"],
        "environment": ["n_cpus"],
    }
    for section, names in promised.items():
        for name in names:
            assert name in data[section], (section, name)


def test_results_survive_a_round_trip_and_match_the_published_schema(result, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(result.to_json(), encoding="utf-8")
    assert read_result(path) == result
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    data = json.loads(result.to_json())
    validator.validate(data)
    data["throughput"] = {"reason": "predictions only"}
    validator.validate(data)
    assert Result.model_validate(data).throughput == Unavailable(reason="predictions only")
    data["throughput"]["atoms_per_s"] = 3.0
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data)


def test_every_field_says_what_it_means():
    schema = json_schema()
    for name, definition in schema["$defs"].items():
        assert definition.get("description"), name
        for field, content in definition.get("properties", {}).items():
            assert content.get("description"), f"{name}.{field}"


def test_nan_and_unknown_fields_are_refused():
    with pytest.raises(ValidationError):
        Residual(largest=float("nan"), mean=0.0)
    with pytest.raises(ValidationError):
        Residual(largest=float("inf"), mean=0.0)
    with pytest.raises(ValidationError):
        Residual(largest=0.0, mean=0.0, extra=1)


def test_unreadable_results_name_the_file_and_the_field(result, tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(VcmbenchError, match=r"result\.json: No such file"):
        read_result(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(VcmbenchError, match=r"result\.json: content"):
        read_result(path)
    data = json.loads(result.to_json())
    data["score_spec"] = 2
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(VcmbenchError, match="score_spec"):
        read_result(path)
    data["score_spec"] = 1
    del data["hamiltonian"]["mae_mev"]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(VcmbenchError, match="hamiltonian"):
        read_result(path)


def test_environment_describes_this_process():
    found = Environment.collect()
    assert found.libraries["numpy"] == np.__version__
    assert found.n_cpus >= 1
    assert all(threads >= 1 for threads in found.threads.values())
    assert found.processor
