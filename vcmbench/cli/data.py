"""`vcmbench data …`: list, describe and verify datasets and stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vcmbench.device import Device
    from vcmbench.release import Release

app = typer.Typer(help="List, describe, verify and import data.", no_args_is_help=True)

Target = Annotated[
    str, typer.Argument(help="A dataset's name, a release folder or one device store.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_datasets(json: Json = False) -> None:
    """List the datasets that travel with this installation, are downloaded, or on the Hub."""
    from vcmbench.cli.output import print_json, print_table
    from vcmbench.hub.download import downloaded_releases
    from vcmbench.hub.registry import published_sources
    from vcmbench.release import Release, known_releases

    rows: list[dict[str, object]] = []
    for folder in (*known_releases().values(), *downloaded_releases().values()):
        manifest = Release.open(folder).manifest
        rows.append(
            {
                "name": manifest.name,
                "version": manifest.version,
                "devices": len(manifest.devices),
                "size_bytes": sum(entry.size for entry in manifest.files.values()),
                "folder": str(folder),
                "hub": None,
            }
        )
    here = {(row["name"], row["version"]) for row in rows}
    rows += [
        {
            "name": source.name,
            "version": source.version,
            "devices": None,
            "size_bytes": None,
            "folder": None,
            "hub": source.repo,
        }
        for source in published_sources()
        if (source.name, source.version) not in here
    ]
    if json:
        print_json(rows)
    else:
        print_table("Datasets", rows)


@app.command("info")
def info(target: Target, json: Json = False) -> None:
    """Describe a dataset or one device store."""
    from vcmbench.cli.output import print_json, print_table

    rows = [describe(device) for device in _devices(target)]
    if json:
        print_json(rows[0] if len(rows) == 1 else rows)
        return
    for row in rows:
        print_table(str(row["id"]), [{"": k, "value": v} for k, v in row.items()])


@app.command("verify")
def verify(target: Target) -> None:
    """Check every byte of a dataset, or one store, and name each problem."""
    from vcmbench.cli.output import console, spinner
    from vcmbench.errors import VcmbenchError
    from vcmbench.release import verify_release
    from vcmbench.store.device import read_device

    if _is_store(target):
        read_device(Path(target))
        console.print(f"{target}: readable, complete and consistent (no manifest to compare with)")
        return
    release = _release(target)
    with spinner("verifying") as update:
        problems = verify_release(release, update)
    if problems:
        raise VcmbenchError("\n".join(problems))
    n_files = len(release.manifest.files) - len(release.left_out)
    console.print(f"{release.label}: {n_files} files as released ({release.folder})")


@app.command("release")
def release(
    folder: Annotated[Path, typer.Argument(help="Folder with devices/ and leads/.")],
    name: Annotated[str, typer.Option(help="Name of the dataset.")],
    version: Annotated[str, typer.Option(help="Version; never changed once published.")],
    card: Annotated[Path, typer.Option(help="Dataset card, copied to README.md.")],
    part: Annotated[
        list[str], typer.Option(help="Part of the device split, e.g. train=first,second.")
    ],
    license_id: Annotated[str, typer.Option("--license", help="SPDX id.")] = "CC-BY-4.0",
) -> None:
    """Make a release of the stores in a folder: card, split and manifest.

    Examples
    --------
    vcmbench data release releases/vcm-demo --name vcm-demo --version 1.0.0
    --card data_cards/vcm-demo.md --part train=device-a --part test=device-b
    """
    from vcmbench.cli.output import console
    from vcmbench.errors import bad_input
    from vcmbench.release import make_release

    parts: dict[str, tuple[str, ...]] = {}
    for text in part:
        key, separator, ids = text.partition("=")
        if not separator:
            raise bad_input("--part", "value", found=text, expected="NAME=ID,ID")
        parts[key] = tuple(ids.split(","))
    made = make_release(
        folder, name=name, version=version, license_id=license_id, card=card, parts=parts
    )
    console.print(f"{made.label}: {len(made.manifest.devices)} devices ({folder})")


@app.command("compare")
def compare(
    reference: Annotated[Path, typer.Argument(help="Store of the first run.")],
    variant: Annotated[Path, typer.Argument(help="Store of the other run of the same device.")],
    swap_yz: Annotated[bool, typer.Option(help="The other run has y and z exchanged.")] = False,
    json: Json = False,
) -> None:
    """Compare H and T(E) of two DFT runs of one device: the noise of the labels.

    The other run may have other settings, a rigid shift, or y and z exchanged.
    """
    from vcmbench.cli.output import print_json, print_table
    from vcmbench.label_noise import SWAP_YZ, label_noise
    from vcmbench.store.device import read_device

    noise = label_noise(
        read_device(reference), read_device(variant), SWAP_YZ if swap_yz else None
    ).model_dump()
    if json:
        print_json(noise)
    else:
        print_table("Difference", [noise])


def describe(device: Device) -> dict[str, object]:
    """Facts about a device that a user asks first."""
    import numpy as np

    from vcmbench.structure import Region

    structure, pattern = device.structure, device.pattern
    labels, counts = np.unique(
        [structure.species_list[s].label for s in structure.species_index], return_counts=True
    )
    regions = {r.label: int((structure.region == r).sum()) for r in Region}
    provenance = device.provenance
    return {
        "id": device.id,
        "kind": device.kind,
        "gauge": device.gauge,
        "sites": structure.n_sites,
        "species": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        "regions": {name: n for name, n in regions.items() if n},
        "cell_ang": np.linalg.norm(structure.cell, axis=1).round(4).tolist(),
        "basis": device.basis.name,
        "orbitals": pattern.n_orbitals,
        "blocks": pattern.n_blocks,
        "entries": pattern.n_entries,
        "support_ang": round(float(pattern.distance.max()), 3),
        "code": f"{provenance.code} {provenance.code_version or ''}".strip(),
        "functional": provenance.functional,
        "fermi_energy_ev": provenance.fermi_energy_ev,
        "scf_steps": provenance.scf_steps,
        "scf_residual": provenance.scf_residual,
        "lead": device.transport.lead if device.transport else None,
        "energies": len(device.transport.energies_ev) if device.transport else 0,
    }


def _devices(target: str) -> list[Device]:
    from vcmbench.store.device import read_device

    if _is_store(target):
        return [read_device(Path(target))]
    release = _release(target)
    absent = release.left_out
    return [release.device(name) for name in release.manifest.devices if name not in absent]


def _release(target: str) -> Release:
    from vcmbench.release import find_release

    return find_release(target)


def _is_store(target: str) -> bool:
    return target.endswith((".zarr.zip", ".zarr"))
