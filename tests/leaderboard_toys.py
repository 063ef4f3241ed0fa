"""Submissions of noisy predictions for a small device with real DFT blocks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from vcmbench.device import Device
from vcmbench.evaluate import Request, run
from vcmbench.leaderboard.pack import pack
from vcmbench.leaderboard.validate import Entry
from vcmbench.release import Release
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
    truth: Release | None = None,
    seed: int = 0,
    **changes: object,
) -> Entry:
    """Predict, evaluate and pack, as a submitter would.

    Parameters
    ----------
    folder : Path
        A leaderboard; predictions lie in ``predictions/<name>`` beside its submissions.
    truth : Release, optional
        Where labels of hidden devices are, which the noise is added to.
    """
    predictions = folder / "predictions" / name
    for device in devices:
        source = (truth or release).device(device)
        noisy_predictions(predictions, source, noise_ev=noise_ev, seed=seed)
    result = folder / "results" / name
    run(Request(model=str(predictions), dataset=str(release.folder), output=result))
    card = folder / "about" / f"{name}.yml"
    card.parent.mkdir(exist_ok=True)
    card.write_text(yaml.safe_dump(about(name, release, **changes)))
    return pack(
        str(predictions),
        result,
        folder / "submissions" / name,
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
    """What `vcmbench throughput` writes, as far as the leaderboard reads it, and one field more."""
    timing = {"median_s": 0.1, "iqr_s": 0.01, "atoms_per_s": 800.0, "edges_per_s": 1e5}
    measured = {
        "outcome": "measured",
        "n_sites": 80,
        "near": timing,
        "memory": {"allocator_peak_bytes": 1 << 30, "host_peak_bytes": 7},
        "counts": True,
    }
    larger = {**measured, "n_sites": 720, "near": {**timing, "median_s": 0.9}}
    return {
        "schema_version": 1,
        "score_spec": 1,
        "devices": {
            **measured,
            "model": {"name": "noisy", "digest": None},
            "device": "wire",
            "full": timing,
            "accelerator": {"kind": "cuda", "name": "Bench 1", "threads": 8},
            **changes,
        },
        "ladder": {
            "rungs": [
                {"n_sites": 80, "result": measured},
                {"n_sites": 720, "result": larger},
                {"n_sites": 6480, "result": {"outcome": "out of memory", "error": "full"}},
            ],
            "slope": {"slope": 1.0, "sizes": [80, 720]},
        },
    }
