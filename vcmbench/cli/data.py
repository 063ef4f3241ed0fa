"""`vcmbench data …`: list, describe and verify datasets and stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcmbench.cli.options import Json

if TYPE_CHECKING:
    from vcmbench.device import Device
    from vcmbench.hub.registry import Source
    from vcmbench.release import Release
    from vcmbench.release.index import IndexRow

app = typer.Typer(
    help="Make, list, describe, verify, import, download and publish data.", no_args_is_help=True
)

Target = Annotated[
    str, typer.Argument(help="A dataset's name, a release folder or one device store.")
]


@app.command("list")
def list_datasets(json: Json = False) -> None:
    """List the datasets that travel with this installation, are downloaded, or on the Hub.

    Examples
    --------
    vcmbench data list --json
    """
    from vcmbench.cli.output import messages, print_json, print_table
    from vcmbench.errors import VcmbenchError
    from vcmbench.hub.download import downloaded_releases
    from vcmbench.hub.registry import published_sources
    from vcmbench.release import Release, known_releases

    rows: list[dict[str, object]] = []
    for folder in (*known_releases().values(), *downloaded_releases().values()):
        try:
            rows.append({**summary(Release.open(folder)), "hub": None})
        except VcmbenchError as error:  # One that is damaged hides no other.
            messages.print(f"not listed: {error}", soft_wrap=True)
    here = {(row["name"], row["version"]) for row in rows}
    rows += [
        _on_the_hub(source)
        for source in published_sources()
        if (source.name, source.version) not in here
    ]
    if json:
        print_json(rows)
    else:
        shown = ("name", "version", "devices", "parts", "size_bytes")
        print_table(
            "Datasets",
            [
                {**{name: row[name] for name in shown}, "where": row["folder"] or row["hub"]}
                for row in rows
            ],
        )


@app.command("info")
def info(target: Target, json: Json = False) -> None:
    """Describe a dataset, with a row per device, or one device store with all its facts.

    Examples
    --------
    vcmbench data info vcm-demo

    vcmbench data info device.zarr.zip --json
    """
    from vcmbench.cli.output import print_json, print_table, spinner
    from vcmbench.release.index import index_rows

    if _is_store(target):
        facts = describe(_read(target))
        if json:
            print_json(facts)
        else:
            print_table(str(facts["id"]), [{"": k, "value": v} for k, v in facts.items()])
        return
    release = _release(target)
    with spinner("reading"):
        rows = index_rows(release)
    facts = {
        **summary(release),
        "digest": release.manifest.digest,
        "not_downloaded": sorted(release.left_out),
    }
    if json:
        print_json({**facts, "devices": [row.model_dump(mode="json") for row in rows]})
        return
    print_table(release.label, [{"": k, "value": v} for k, v in facts.items()])
    print_table("Devices", [_device_row(row) for row in rows])


@app.command("verify")
def verify(target: Target, json: Json = False) -> None:
    """Check every byte of a dataset, or one store, and name each problem.

    Examples
    --------
    vcmbench data verify vcm-nano
    """
    from vcmbench.cli.output import console, print_json, spinner
    from vcmbench.errors import VcmbenchError
    from vcmbench.release import verify_release

    if _is_store(target):
        _read(target)
        if json:
            print_json({"store": target, "problems": []})
            return
        console.print(
            f"{target}: readable, complete and consistent (no manifest to compare with)",
            soft_wrap=True,
        )
        return
    release = _release(target)
    with spinner("verifying") as update:
        problems = verify_release(release, update)
    n_files = len(release.manifest.files) - len(release.left_out)
    if json:
        print_json({"release": release.label, "files": n_files, "problems": problems})
    if problems:
        raise VcmbenchError("\n".join(problems))
    if not json:
        console.print(
            f"{release.label}: {n_files} files as released ({release.folder})", soft_wrap=True
        )


@app.command("compare")
def compare(
    reference: Annotated[Path, typer.Argument(help="Store of the first run.")],
    variant: Annotated[Path, typer.Argument(help="Store of the other run of the same device.")],
    swap_yz: Annotated[bool, typer.Option(help="The other run has y and z exchanged.")] = False,
    json: Json = False,
) -> None:
    """Compare H and T(E) of two DFT runs of one device: the noise of the labels.

    The other run may have other settings, a rigid shift, or y and z exchanged.

    Examples
    --------
    vcmbench data compare first.zarr.zip second.zarr.zip --swap-yz
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
    """Facts about one device, and the sites of each region."""
    from vcmbench.facts import device_facts
    from vcmbench.structure import Region

    regions = {r.label: int((device.structure.region == r).sum()) for r in Region}
    return {
        **device_facts(device).model_dump(mode="json"),
        "regions": {name: n for name, n in regions.items() if n},
    }


def summary(release: Release) -> dict[str, object]:
    """Facts about a release."""
    manifest = release.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "devices": len(manifest.devices),
        "withheld": sum(entry.complete_digest is not None for entry in manifest.devices.values()),
        "parts": {part: len(ids) for part, ids in release.device_parts.parts.items()},
        "splits": release.split_names,
        "size_bytes": sum(entry.size for entry in manifest.files.values()),
        "folder": str(release.folder),
    }


def _on_the_hub(source: Source) -> dict[str, object]:
    return {
        "name": source.name,
        "version": source.version,
        "devices": None,
        "withheld": None,
        "parts": None,
        "splits": None,
        "size_bytes": None,
        "folder": None,
        "hub": source.repo,
    }


def _device_row(row: IndexRow) -> dict[str, object]:
    return {
        "id": row.id,
        "part": row.part,
        "sites": row.n_sites,
        "vacancies": row.n_vacancies,
        "oxide (Å)": row.oxide_thickness_ang,
        "entries": row.n_entries,
        "MB": round(row.store_bytes / 1e6, 2),
        "H": "withheld" if row.withheld else "stored",
    }


def _read(target: str) -> Device:
    from vcmbench.store.device import read_device

    return read_device(Path(target))


def _release(target: str) -> Release:
    from vcmbench.release import find_release

    return find_release(target)


def _is_store(target: str) -> bool:
    return target.endswith((".zarr.zip", ".zarr"))
