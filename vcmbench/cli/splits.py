"""`vcmbench data splits`: what each part of a split supervises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vcmbench.cli.options import Json

if TYPE_CHECKING:
    from vcmbench.supervision import Counts, Supervision


def splits(
    dataset: Annotated[str, typer.Argument(help="A dataset's name or release folder.")],
    split: Annotated[str | None, typer.Option(help="One split; all by default.")] = None,
    slab_width: Annotated[
        float, typer.Option(min=0.1, help="Slab width in Å for the published rule's share.")
    ] = 3.0,
    reach: Annotated[
        float, typer.Option(min=0, help="Cutoff times layers of the model in Å, for overlaps.")
    ] = 8.0,
    json: Json = False,
) -> None:
    """Show what each part supervises: sites, blocks and entries below 8 Å and in all.

    For a partition of one device also the guards' share, what the published rule (both sites in
    one slab) would supervise of the training part, and how far a model's inputs overlap.

    Examples
    --------
    vcmbench data splits vcm-demo

    vcmbench data splits vcm-nano --split partition --slab-width 3 --reach 24
    """
    from vcmbench.cli.output import console, print_json, print_table, spinner
    from vcmbench.device import HEADLINE_CUTOFF_ANG
    from vcmbench.release import PartitionSplit, find_release
    from vcmbench.supervision import partition_report, supervision

    release = find_release(dataset)
    found = []
    for name in [split] if split else release.split_names:
        chosen = release.split(name)
        with spinner(f"counting {name}"):
            parts = supervision(release, chosen)
            report = None
            if (
                isinstance(chosen, PartitionSplit)
                and "train" in chosen.parts
                and chosen.device not in release.left_out
            ):
                report = partition_report(
                    release, chosen, slab_width_ang=slab_width, reach_ang=reach
                )
        found.append((chosen, parts, report))
    if json:
        print_json(
            [
                {
                    **chosen.model_dump(mode="json"),
                    "supervision": [part.model_dump() for part in parts],
                    "partition": report and report.model_dump(),
                }
                for chosen, parts, report in found
            ]
        )
        return
    for chosen, parts, report in found:
        title = f"{release.label}, split {chosen.name} (version {chosen.version})"
        print_table(
            f"{title}: blocks below {HEADLINE_CUTOFF_ANG:g} Å", [_row(p, p.near) for p in parts]
        )
        print_table(f"{title}: all blocks", [_row(p, p.whole) | _share(p) for p in parts])
        if report is None:
            continue
        share = report.both_ends_inside_blocks / max(1, report.supervised_blocks)
        console.print(
            f"Both sites in one {slab_width:g} Å slab: {report.both_ends_inside_blocks} of "
            f"{report.supervised_blocks} training blocks below {report.cutoff_ang:g} Å "
            f"({share:.1%}); the slabs of vcmbench supervise all of them."
        )
        print_table(f"Inputs shared with training at a reach of {reach:g} Å", report.overlaps)


def _row(part: Supervision, counts: Counts) -> dict[str, object]:
    return {
        "part": part.part,
        "devices": part.devices,
        "not downloaded": part.left_out,
        "sites": part.sites,
        "blocks": counts.blocks,
        "entries": counts.entries,
        "with a ghost": counts.ghost_blocks,
    }


def _share(part: Supervision) -> dict[str, object]:
    return {"share": f"{part.share:.1%}"}
