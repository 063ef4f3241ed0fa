"""`vcmbench transmission`: T(E) of a device or of a prediction for it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcmbench.cli.evaluate import Accelerator
from vcmbench.cli.options import Dataset, Json, Model

if TYPE_CHECKING:
    from vcmbench.structure import FloatArray
    from vcmbench.transmit import Agreement


class Predicted(StrEnum):
    """What a prediction is used for; the rest is DFT's."""

    DEVICE = "device"
    CONTACTS = "contacts"
    BOTH = "both"


def transmission(
    device: Annotated[str, typer.Argument(help="Id of a device of the dataset.")],
    dataset: Dataset = "vcm-demo",
    model: Model = None,
    predicted: Annotated[
        Predicted,
        typer.Option(
            help="Where the prediction is used: all but the contacts, only there, or both."
        ),
    ] = Predicted.DEVICE,
    window: Annotated[
        tuple[float, float], typer.Option(help="Lowest and highest energy around E_F, eV.")
    ] = (-1.0, 1.0),
    step: Annotated[float, typer.Option(help="Distance of two energies, eV.")] = 0.01,
    refine: Annotated[
        float | None,
        typer.Option(help="Halve steps over which T changes by a quarter, down to this, eV."),
    ] = None,
    accelerator: Annotated[
        Accelerator, typer.Option(help="What solves the device; the estimate is this CPU's.")
    ] = Accelerator.CPU,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a running Dask scheduler; this process if left out."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="T(E) of another program: TBtrans' TBT.nc, a QuaTrEx folder or a table of E and T."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the files [results/transmission-DATASET-DEVICE]."),
    ] = None,
    json: Json = False,
) -> None:
    """Compute T(E) between ideal leads and write it as CSV and as a plot.

    Time and memory are estimated first. Running the same command again goes on where it stopped.

    Examples
    --------
    vcmbench transmission device-b --window -0.5 0.5

    vcmbench transmission device-b --window 0.3 0.5 --refine 0.0005

    vcmbench transmission device-b --model slater-koster --predicted both

    vcmbench transmission device-b --compare siesta.TBT.nc
    """
    import numpy as np

    from vcmbench.cli.output import messages, print_json, print_table, resumable, stage_progress
    from vcmbench.transmit import Request, transmit
    from vcmbench.transport.estimate import Estimate
    from vcmbench.transport.observables import conductance_g0, current_a

    def announce(cost: Estimate) -> None:
        messages.print(
            f"{cost.n_points} points of {cost.gflop_per_point:.3g} Gflop, {cost.n_surfaces} new "
            f"lead surfaces: about {cost.seconds / 60:.1f} min and {cost.memory_bytes / 2**30:.2g} "
            "GiB if nothing is kept from an earlier run"
        )

    request = Request(
        device=device,
        dataset=dataset,
        model=model,
        predicted=predicted.value,
        window_ev=window,
        step_ev=step,
        refine_ev=refine,
        accelerator=accelerator.value,
        scheduler=scheduler,
        compare=compare,
        output=output,
    )
    with resumable(), stage_progress() as progress:
        written = transmit(request, announce=announce, progress=progress)
    found = written.transmission
    curve = found.energies_ev, found.mean

    half = _reach_v(found.energies_ev)
    row = {
        "G (2e²/h)": conductance_g0(*curve) if half >= 0 else None,
        **{
            f"I at {voltage:g} V (A)": float(current_a(*curve, np.array([voltage]))[0])
            if half >= voltage / 2
            else None
            for voltage in (0.1, 1.0)
        },
        "smallest T": float(found.mean.min()),
        "largest T": float(found.mean.max()),
        "error of T at two layers": found.gates.meeting_error,
    }
    agreement = written.agreement and _resolved(written.agreement)
    if json:
        print_json([row | ({"compared": agreement} if agreement else {})])
    else:
        print_table(f"{device}: {model or 'DFT'}", [row])
        if written.agreement and agreement:
            n_common = len(written.agreement.energies_ev)
            title = f"{compare} against this T(E) at {n_common} energies"
            print_table(title, [{"metric": name, "value": v} for name, v in agreement.items()])
    messages.print(f"written: {written.csv}, {written.plot}", soft_wrap=True)


def _reach_v(energies_ev: FloatArray) -> float:
    """Half of the largest voltage for which energies hold and resolve the thermal tails."""
    import numpy as np

    from vcmbench.transport.observables import TEMPERATURE_K
    from vcmbench.units import BOLTZMANN_EV_PER_K

    thermal_ev = TEMPERATURE_K * BOLTZMANN_EV_PER_K
    if np.diff(energies_ev).max() > 1.5 * thermal_ev:
        return -np.inf
    return float(min(-energies_ev[0], energies_ev[-1]) - 10 * thermal_ev)


def _resolved(agreement: Agreement) -> dict[str, float | None]:
    """Figures of an agreement, None where the common energies do not resolve them."""
    from vcmbench.scores.transmission import VOLTAGES_V

    half = _reach_v(agreement.energies_ev)
    figures: dict[str, float | None] = agreement.errors.model_dump()
    if half < 0:
        figures["conductance_log10_error"] = None
    if half < VOLTAGES_V[-1] / 2:
        figures["current_log10_error"] = None
    return figures
