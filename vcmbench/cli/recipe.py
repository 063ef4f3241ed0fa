"""`vcmbench data build`: compute the devices of a recipe with CP2K."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vcmbench.cluster import Outcome


def build(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).", show_default=False)],
    output: Annotated[
        Path, typer.Option(help="Folder of the finished stores and records.", show_default=False)
    ],
    work: Annotated[
        Path, typer.Option(help="Folder of the runs: several GB for each unfinished device.")
    ] = Path("runs"),
    devices: Annotated[
        str | None, typer.Option(help="Only these devices: ID,ID; all if left out.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a running Dask scheduler; this machine if left out."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Devices computed at a time on this machine.")
    ] = 1,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1, help="MPI ranks of each CP2K; an equal share of the cores if left out."
        ),
    ] = None,
) -> None:
    """Compute the devices of a recipe: structure, SCF, import, T(E), store.

    Finished devices are skipped, an interrupted one goes on from its saved density. On a SLURM
    cluster start dask-jobqueue's SLURMCluster and give its scheduler's address; every worker
    must see the folders under the same paths.

    Needs CP2K with MPI on PATH, and pip install 'vcmbench[build,dft]'.

    Examples
    --------
    vcmbench data build recipe.yml --output releases/vcm-nano --devices s1-v0,s1-v2

    vcmbench data build recipe.yml --output /scratch/nano --work /scratch/runs
    --scheduler tcp://10.0.0.1:8786
    """
    from vcmbench.cli.output import messages, print_table, spinner
    from vcmbench.cluster import build as compute
    from vcmbench.errors import VcmbenchError, unknown_name
    from vcmbench.machine import available_cpus
    from vcmbench.production import Site
    from vcmbench.recipe import Recipe
    from vcmbench.workers import local_cluster, running_cluster

    plan = Recipe.read(recipe)
    jobs = plan.devices
    if devices is not None:
        known = {job.id: job for job in plan.devices}
        for name in devices.split(","):
            if name not in known:
                raise unknown_name(f"device of {recipe}", name, known)
        jobs = tuple(known[name] for name in devices.split(","))
    if ranks is None and scheduler is None:
        ranks = max(1, available_cpus() // workers)
    site = Site(plan, output.resolve(), work.resolve(), ranks)
    cluster = local_cluster(workers) if scheduler is None else running_cluster(scheduler)
    outcomes: list[Outcome] = []
    with cluster as client, spinner(plan.name) as update:
        for outcome in compute(client, site, jobs, tell=update):
            outcomes.append(outcome)
            messages.print(f"{outcome.name}: {'failed' if outcome.error else 'finished'}")
    print_table(str(output), [_row(outcome) for outcome in outcomes])
    if errors := [outcome.error for outcome in outcomes if outcome.error]:
        raise VcmbenchError("\n".join(errors))


def _row(outcome: Outcome) -> dict[str, object]:
    record = outcome.record
    row: dict[str, object] = {"id": outcome.name}
    if record is None:
        return {**row, "sites": None, "start": None, "SCF steps": None, "minutes": None, "MB": None}
    return {
        **row,
        "sites": record.n_sites,
        "start": record.run.attempts[0].start,
        "SCF steps": record.run.steps,
        "minutes": round(record.run.seconds / 60, 1),
        "MB": round(record.store_bytes / 1e6, 1),
    }
