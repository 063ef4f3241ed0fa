"""Submissions of noisy predictions for a small device with real DFT blocks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from vcmbench.device import Device
from vcmbench.evaluate import Request, run
from vcmbench.leaderboard.pack import pack
from vcmbench.leaderboard.validate import Entry
from vcmbench.release import Release
from vcmbench.scores.result import Environment
from vcmbench.store import write_predictions

HOST = "https://example.org/predictions/"
HARDWARE = {
    "schema_version": 1,
    "machines": {
        "bench-gpu": {
            "label": "Bench GPU",
            "accelerator": "cuda",
            "accelerator_name": "Bench 1",
            "threads": 8,
        },
        "bench-cpu": {
            "label": "Bench CPU",
            "accelerator": "cpu",
            "accelerator_name": "Bench 0",
            "threads": 1,
        },
    },
}


def about(name: str, release: Release, **changes: object) -> dict[str, object]:
    """Fields of a submission."""
    manifest = release.manifest
    seen = {"name": manifest.name, "version": manifest.version, "digest": manifest.digest}
    return {
        "name": name,
        "version": "1",
        "description": "Noise on top of the reference.",
        "authors": ["A. Tester"],
        "code_license": "MIT",
        "weights_license": "CC-BY-4.0",
        "cutoff_ang": 12.0,
        "n_parameters": 1,
        "training": {"datasets": [seen], "extra_data": []},
        **changes,
    }


def noisy_predictions(folder: Path, device: Device, *, noise_ev: float, seed: int = 0) -> None:
    """Write predictions that differ from the reference in every entry."""
    h = device.hamiltonian
    noise = np.random.default_rng(seed).normal(scale=noise_ev, size=len(h.values))
    write_predictions(folder, device.id, h.with_values(h.values + noise), gauge="fermi")


def submit(
    folder: Path,
    name: str,
    release: Release,
    *,
    noise_ev: float = 1e-3,
    devices: tuple[str, ...] = ("wire",),
    parts: tuple[str, ...] = (),
    truth: Release | None = None,
    seed: int = 0,
    **changes: object,
) -> Entry:
    """Predict, evaluate and pack, as a submitter would.

    Parameters
    ----------
    folder : Path
        A leaderboard; predictions lie in ``predictions/<name>`` beside its submissions.
    parts : tuple of str
        Parts out of distribution that are submitted too.
    truth : Release, optional
        Where labels of hidden devices are, which the noise is added to.
    """
    predictions = folder / "predictions" / name
    further = [device for part in parts for device in release.device_ids(part)]
    for device in (*devices, *further):
        source = (truth or release).device(device)
        noisy_predictions(predictions, source, noise_ev=noise_ev, seed=seed)
    result = folder / "results" / name
    request = Request(model=str(predictions), dataset=str(release.folder), output=result)
    run(request)
    outputs = {part: folder / "results" / f"{name}-{part}" for part in parts}
    for part, output in outputs.items():
        run(replace(request, selection=part, output=output))
    card = folder / "about" / f"{name}.yml"
    card.parent.mkdir(exist_ok=True)
    card.write_text(yaml.safe_dump(about(name, release, **changes)))
    return pack(
        str(predictions),
        result,
        folder / "submissions" / name,
        further=tuple(outputs.values()),
        about=card,
        hosted=HOST,
        release=release,
    )


def edit_json(path: Path, change: Mapping[str, object]) -> None:
    """Change values of a JSON file, named by dotted paths."""
    document = json.loads(path.read_text())
    for name, value in change.items():
        *parents, last = name.split(".")
        target = document
        for parent in parents:
            target = target[parent]
        target[last] = value
    path.write_text(json.dumps(document))


def rewrite_archive(path: Path, members: Mapping[str, bytes | None]) -> None:
    """Replace members of a zip archive by others; None takes one out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if name not in members:
                new.writestr(name, old.read(name))
        for name, content in members.items():
            if content is not None:
                new.writestr(name, content)
    path.write_bytes(buffer.getvalue())


def write_hardware(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hardware.yml").write_text(yaml.safe_dump(HARDWARE))


def throughput_report(**changes: object) -> dict[str, object]:
    """What `vcmbench throughput` writes; `changes` are of its section `devices`."""
    unread = {"reason": "a toy"}
    timing = {
        "cutoff_ang": 8.0, "median_s": 0.1, "iqr_s": 0.01, "fastest_s": 0.09, "n_repeats": 5,
        "n_warmup": 4, "stable": True, "atoms_per_s": 800.0, "edges_per_s": 1e5,
        "nonzeros_per_s": 1e7, "cold_s": 1.0, "p90_s": 0.11,
    }  # fmt: skip
    measured = {
        "outcome": "measured", "n_sites": 80, "n_edges": 1000, "n_nonzeros": 1000, "load_s": 1.0,
        "near": timing, "stages_s": None, "energy": unread, "counts": True,
        "memory": {
            "allocator_peak_bytes": 1 << 30, "allocator_reserved_bytes": unread,
            "board_used_bytes": unread, "board_idle_bytes": unread, "host_peak_bytes": 7,
        },
        "gates": {
            "mae_mev": 0.1, "scored_mae_mev": 0.1, "accuracy": True, "equivariance": True,
            "equivariance_residual": 1e-6, "copies": True, "copies_residual": None,
        },
        "accelerator": {
            "kind": "cuda", "name": "Bench 1", "memory_bytes": unread, "compute_capability": None,
            "threads": 8, "cpus": unread, "load_average": unread, "flags": {}, "variables": {},
            "compiled_graphs": None, "used": True, "reported": None, "board": unread,
        },
        "environment": Environment.collect().model_dump(mode="json"),
    }  # fmt: skip
    larger = {**measured, "n_sites": 720, "near": {**timing, "median_s": 0.9}}
    full = {"outcome": "out of memory", "memory": "board", "error": "full"}
    slope = {"slope": 1.0, "standard_error": None, "sizes": [80, 720]}
    return {
        "schema_version": 1,
        "score_spec": 1,
        "model": "noisy",
        "dataset": {
            "name": "wires", "version": "0.1.0", "digest": "0", "split": "device", "part": "test",
            "devices": ["wire"],
        },
        "settings": {
            "threads": 8, "sizes": [80], "max_seconds_per_size": 15.0, "seed": 0,
            "jitter_ang": 0.01,
        },
        "devices": {
            **measured,
            "model": {"name": "noisy", "kind": "predictions", "digest": None},
            "device": "wire",
            "full": timing,
            "offline": timing,
            "offline_devices": ["wire"],
            "mae_mev_by_device": {"wire": 0.1},
            **changes,
        },
        "ladder": {
            "device": "wire",
            "rungs": [
                {"n_sites": 80, "copies": [1, 1], "result": measured},
                {"n_sites": 720, "copies": [3, 3], "result": larger},
                {"n_sites": 6480, "copies": [9, 9], "result": full},
            ],
            "slope": slope,
            "slope_large": unread,
            "largest_that_fits": 720,
            "smallest_that_does_not": 6480,
        },
    }  # fmt: skip
