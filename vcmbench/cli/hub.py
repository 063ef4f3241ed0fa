"""`vcmbench data download` and `vcmbench data publish`: releases from and to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def download(
    dataset: Annotated[str, typer.Argument(help="NAME or NAME@VERSION.")],
    devices: Annotated[
        str | None, typer.Option(help="Only these devices, e.g. first,second.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only these devices: PART or SPLIT:PART.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option(help="Dataset repository instead of the registry's.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit or tag instead of the pinned commit.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder to download to instead of the cache.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only look for what is downloaded already.")
    ] = False,
) -> None:
    """Download a dataset from the Hub, or complete and check an earlier download.

    Every file is checked against the manifest, and the manifest against the registry. Interrupted
    or failed, the same command continues. Needs: pip install 'vcmbench[hub]'.

    Examples
    --------
    vcmbench data download vcm-nano

    vcmbench data download vcm-nano@1.0.0 --split test

    vcmbench data download my-set@0.1.0 --repo me/my-set --dir my-set
    """
    from vcmbench.cli.output import console, messages
    from vcmbench.hub.download import Selection, download

    selection = Selection(tuple(devices.split(",")) if devices else (), split)
    try:
        release = download(
            dataset,
            selection,
            repo=repo,
            revision=revision,
            offline=offline,
            folder=directory,
            progress=lambda remark: messages.print(remark, soft_wrap=True),
        )
    except KeyboardInterrupt:
        messages.print("interrupted: run the same command again to continue")
        raise typer.Exit(130) from None
    total = len(release.manifest.devices)
    present = total - len(release.left_out)
    console.print(
        f"{release.label}: {present} of {total} devices in {release.folder}", soft_wrap=True
    )


def publish(
    folder: Annotated[Path, typer.Argument(help="Release folder.")],
    repo: Annotated[str, typer.Option(help="Dataset repository, e.g. vcmbench/vcm-nano.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, upload nothing.")
    ] = False,
) -> None:
    """Verify a release, upload it in one commit, tag it, and print its entry of the registry.

    Log in first (hf auth login) or set HF_TOKEN to a token that may write. A published version
    never changes: other content needs another version. Needs: pip install 'vcmbench[hub]'.

    Examples
    --------
    vcmbench data publish releases/vcm-demo --repo vcmbench/vcm-demo
    """
    from vcmbench.cli.output import console, messages, print_json
    from vcmbench.hub.publish import publish

    publication = publish(folder, repo, dry_run=dry_run, progress=messages.print)
    if publication.commit is None:
        console.print(f"{publication.label}: can be published to {repo} (dry run: nothing sent)")
        return
    console.print(f"{publication.label}: published, for vcmbench/hub/datasets.json:")
    print_json(
        {
            publication.version: {
                "revision": publication.commit,
                "manifest_sha256": publication.manifest_sha256,
            }
        }
    )
