"""`vcmbench data export`: a device for other codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    device: Annotated[str, typer.Argument(help="Id of a device or lead of the dataset.")],
    output: Annotated[Path, typer.Argument(help="File to write: .TSHS for sisl and TBtrans.")],
    dataset: Annotated[
        str, typer.Option(help="A dataset's name (vcm-demo, vcm-demo@1.0.0) or release folder.")
    ] = "vcm-demo",
    model: Annotated[
        str | None,
        typer.Option(
            help="Predict H: a baseline, model directory, module:callable or predictions."
        ),
    ] = None,
) -> None:
    """Write H and S of a device or a lead for sisl and TBtrans; needs the extra [sisl].

    Examples
    --------
    vcmbench data export device-b device.TSHS

    vcmbench data export lead-tin lead.TSHS
    """
    from vcmbench.cli.output import messages
    from vcmbench.exporters.sisl_export import write_sisl
    from vcmbench.release import find_release
    from vcmbench.transmit import hamiltonian_of

    release = find_release(dataset)
    is_lead = device in release.manifest.leads
    entry = release.lead(device) if is_lead else release.device(device)
    _, hamiltonian = hamiltonian_of(entry, model)
    write_sisl(output, hamiltonian, entry.overlap)
    messages.print(f"written: {output}")
