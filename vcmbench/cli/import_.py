"""`vcmbench data import …`: finished runs and published data sets to device stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vcmbench.importers import ImportedRun

app = typer.Typer(help="Import runs and published data.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder with the run's files.", show_default=False)]
Output = Annotated[
    Path, typer.Option(help="Device store to write (.zarr.zip).", show_default=False)
]
DeviceId = Annotated[
    str | None, typer.Option("--id", help="Device id; the folder's name by default.")
]
Support = Annotated[float, typer.Option(help="Every pair closer than this gets a block, Å.")]
AllowFolded = Annotated[
    bool, typer.Option(help="Accept a folded matrix of a cell shorter than twice the support.")
]
Source = Annotated[str | None, typer.Option(help="Citation or address of the data.")]
_SUPPORT_ANG = 12.0


@app.command("cp2k")
def cp2k(
    run_dir: Folder,
    output: Output,
    device_id: DeviceId = None,
    kind: Annotated[str, typer.Option(help="device (with contacts) or bulk.")] = "device",
    support_ang: Support = _SUPPORT_ANG,
    allow_folded: AllowFolded = False,
    lead_run: Annotated[
        Path | None,
        typer.Option(help="CP2K run of the lead: adds the reference T(k, E) and its floors."),
    ] = None,
    check_electrons: Annotated[
        bool, typer.Option(help="Count the electrons on the run's own k-mesh.")
    ] = True,
) -> None:
    """Import a finished CP2K run: input, log, KS and S matrices.

    Examples
    --------
    vcmbench data import cp2k lead-tin --kind bulk --output leads/lead-tin.zarr.zip

    vcmbench data import cp2k device-a --lead-run lead-tin --output devices/device-a.zarr.zip
    """
    from vcmbench.cli.output import spinner
    from vcmbench.errors import unknown_name
    from vcmbench.importers import import_cp2k

    if kind not in ("device", "bulk"):
        raise unknown_name("kind", kind, ("device", "bulk"))
    with spinner(f"importing {run_dir}"):
        run = import_cp2k(
            run_dir,
            device_id=device_id,
            kind="device" if kind == "device" else "bulk",
            support_ang=support_ang,
            allow_folded=allow_folded,
            check_electrons=check_electrons,
        )
    if lead_run is not None:
        run = _with_reference(run, lead_run, support_ang)
    _write(run, output)


@app.command("eth")
def eth(
    folder: Folder,
    output: Output,
    device_id: DeviceId = None,
    basis_set: Annotated[str, typer.Option(help="CP2K basis set.")] = "SZV-MOLOPT-SR-GTH",
    fermi_energy_ev: Annotated[
        float | None, typer.Option(help="Fermi energy of the run, eV; raw gauge without it.")
    ] = None,
    cell_ang: Annotated[
        str | None, typer.Option(help="Sides of the cell, 'A,B,C' in Å, if the file has none.")
    ] = None,
    support_ang: Support = _SUPPORT_ANG,
    allow_folded: AllowFolded = False,
    source: Source = None,
) -> None:
    """Import structure.xyz, H.csr and S.csr of large_atomic_structures (ETH) as bulk data."""
    from vcmbench.cli.output import spinner
    from vcmbench.importers import import_eth

    with spinner(f"importing {folder}"):
        run = import_eth(
            folder,
            device_id=device_id,
            basis_set=basis_set,
            fermi_energy_ev=fermi_energy_ev,
            cell_ang=_sides(cell_ang),
            support_ang=support_ang,
            allow_folded=allow_folded,
            source=source,
        )
    _write(run, output)


@app.command("deeph")
def deeph(
    folder: Folder,
    output: Output,
    device_id: DeviceId = None,
    orbital_order: Annotated[
        str | None,
        typer.Option(help="Order within a shell: openmx (DeepH-pack's own) or m-ascending."),
    ] = None,
    support_ang: Support = _SUPPORT_ANG,
    code: Annotated[str, typer.Option(help="Electronic-structure code.")] = "unknown",
    source: Source = None,
) -> None:
    """Import a DeepH-style folder (hamiltonians.h5, overlaps.h5, …) as bulk data."""
    from typing import get_args

    from vcmbench.cli.output import spinner
    from vcmbench.errors import unknown_name
    from vcmbench.importers import import_deeph
    from vcmbench.importers.deeph import OrbitalOrder

    known: tuple[OrbitalOrder, ...] = get_args(OrbitalOrder)
    order = next((name for name in known if name == orbital_order), None)
    if orbital_order is not None and order is None:
        raise unknown_name("orbital order", orbital_order, known)
    with spinner(f"importing {folder}"):
        run = import_deeph(
            folder,
            device_id=device_id,
            orbital_order=order,
            support_ang=support_ang,
            code=code,
            source=source,
        )
    _write(run, output)


def _with_reference(run: ImportedRun, lead_run: Path, support_ang: float) -> ImportedRun:
    """Add T(k, E) between leads from another run."""
    from dataclasses import replace

    from vcmbench.cli.output import spinner, stage_progress
    from vcmbench.importers import import_cp2k
    from vcmbench.reference import Operators, with_reference
    from vcmbench.resources import cache_folder

    with spinner(f"importing {lead_run}"):
        lead = import_cp2k(lead_run, kind="bulk", support_ang=support_ang)
    with stage_progress() as progress:
        device = with_reference(
            run.device,
            Operators(run.raw_hamiltonian, run.raw_overlap),
            lead.device,
            Operators(lead.raw_hamiltonian, lead.raw_overlap),
            cache=cache_folder() / "leads",
            progress=progress,
        )
    return replace(run, device=device)


def _sides(text: str | None) -> list[float] | None:
    from vcmbench.errors import bad_input

    if text is None:
        return None
    try:
        sides = [float(word) for word in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) != 3:
        raise bad_input("--cell-ang", "sides", found=repr(text), expected="'A,B,C' in Å")
    return sides


def _write(run: ImportedRun, output: Path) -> None:
    """Write the store; show what was checked, what was measured and what came out."""
    from vcmbench.cli.data import describe
    from vcmbench.cli.output import print_table, spinner
    from vcmbench.store import write_device

    state = {True: "passed", False: "FAILED", None: "skipped"}
    print_table(
        "Checks",
        [
            {
                "check": check.name,
                "measured": check.value,
                "expected": check.expected,
                "result": state[check.passed],
            }
            for check in run.checks
        ],
    )
    with spinner(f"writing {output}"):
        digest = write_device(output, run.device)
    facts = {**describe(run.device), "store": str(output), "content_digest": digest}
    print_table(run.device.id, [{"": key, "value": value} for key, value in facts.items()])
