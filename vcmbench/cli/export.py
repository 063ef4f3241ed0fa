"""`vcmbench data export`: a device for other codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.options import Dataset, Model


def export(
    device: Annotated[str, typer.Argument(help="Id of a device or lead of the dataset.")],
    output: Annotated[
        Path,
        typer.Argument(help="FILE.TSHS for sisl and TBtrans, or a new folder NAME.quatrex."),
    ],
    dataset: Dataset = "vcm-demo",
    model: Model = None,
) -> None:
    """Write H and S of a device or a lead for other codes; needs the extra [sisl] or [importers].

    Examples
    --------
    vcmbench data export device-b device.TSHS

    vcmbench data export lead-tin lead.TSHS

    vcmbench data export s05-v0 device.quatrex --dataset vcm-nano
    """
    from vcmbench.cli.output import messages
    from vcmbench.errors import bad_input
    from vcmbench.exporters.quatrex_export import write_quatrex
    from vcmbench.exporters.sisl_export import write_sisl
    from vcmbench.release import find_release
    from vcmbench.transmit import hamiltonian_of

    release = find_release(dataset)
    is_lead = device in release.manifest.leads
    entry = release.lead(device) if is_lead else release.device(device)
    if entry.gauge != "fermi":
        raise bad_input(
            device, "gauge", found=entry.gauge, expected="fermi: levels relative to E_F"
        )
    _, hamiltonian = hamiltonian_of(entry, model)
    if output.suffix != ".quatrex":
        write_sisl(output, hamiltonian, entry.overlap)
    elif entry.lead is None:
        raise bad_input(device, "contacts", found="none", expected="a device with two")
    else:
        write_quatrex(
            output,
            hamiltonian,
            entry.overlap,
            release.lead(entry.lead).structure,
            kpoint_mesh=entry.provenance.kpoint_mesh or (1, 1, 1),
        )
    messages.print(f"written: {output}", soft_wrap=True)
