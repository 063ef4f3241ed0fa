"""`vcmbench data release|hide|join`: make releases, withhold test Hamiltonians, rejoin them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcmbench.cli.options import Json

Dataset = Annotated[str, typer.Argument(help="A dataset's name or a release folder.")]


def release(
    folder: Annotated[Path, typer.Argument(help="Folder with devices/ and leads/.")],
    recipe: Annotated[Path, typer.Argument(help="Release recipe (.release.yml).")],
    json: Json = False,
) -> None:
    """Make a release of the stores in a folder: card, index, Croissant, splits, manifest.

    Needs pyarrow: pip install 'vcmbench[release]'.

    Examples
    --------
    vcmbench data release releases/vcm-demo data_cards/vcm-demo.release.yml
    """
    from vcmbench.cli.data import summary
    from vcmbench.cli.output import console, print_json, spinner
    from vcmbench.release import make_release, read_recipe

    with spinner("measuring") as update:
        made = make_release(folder, read_recipe(recipe), update)
    if json:
        print_json(summary(made))
        return
    n_files = len(made.manifest.files)
    console.print(
        f"{made.label}: {len(made.manifest.devices)} devices, {n_files} files ({folder})",
        soft_wrap=True,
    )


def hide(
    dataset: Dataset,
    devices: Annotated[str, typer.Option(help="Device ids to withhold, comma-separated.")],
    public: Annotated[Path, typer.Option(help="Folder of the public half to write.")],
    private: Annotated[Path, typer.Option(help="Folder of the private half to write.")],
    json: Json = False,
) -> None:
    """Withhold the Hamiltonians of test devices: a release to publish and the rest to keep.

    The card's prose is copied into the public half: see that it does not tell what is withheld.

    Examples
    --------
    vcmbench data hide vcm-demo --devices device-b --public public --private private
    """
    from vcmbench.cli.output import console, print_json, spinner
    from vcmbench.release import find_release
    from vcmbench.release.hidden import hide_devices

    with spinner("withholding") as update:
        made = hide_devices(
            find_release(dataset), tuple(devices.split(",")), public, private, update
        )
    if json:
        withheld = list(made.private.devices)
        print_json({"withheld": withheld, "public": str(public), "private": str(private)})
        return
    console.print(
        f"{made.public.label}: {', '.join(made.private.devices)} withheld; "
        f"publish {public}, keep {private}",
        soft_wrap=True,
    )


def join(
    public: Annotated[str, typer.Argument(help="The public half.", show_default=False)],
    private: Annotated[Path, typer.Argument(help="Folder of the private half.")],
    output: Annotated[Path, typer.Argument(help="Folder of the joined release to write.")],
    json: Json = False,
) -> None:
    """Join both halves of a release, bit for bit, so that predictions can be scored.

    Examples
    --------
    vcmbench data join public private joined && vcmbench evaluate predictions --dataset joined
    """
    from vcmbench.cli.data import summary
    from vcmbench.cli.output import console, print_json, spinner
    from vcmbench.release import find_release
    from vcmbench.release.hidden import join_release

    with spinner("joining") as update:
        made = join_release(find_release(public), private, output, update)
    if json:
        print_json(summary(made))
        return
    console.print(f"{made.label}: {len(made.manifest.devices)} devices ({output})", soft_wrap=True)
