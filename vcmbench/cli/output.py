"""Tables, JSON and progress on the terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(markup=False)
"""Results go to standard output."""
messages = Console(stderr=True, markup=False)
"""Progress and remarks go to standard error."""


class _LogHandler(logging.Handler):
    """Log lines above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        messages.print(self.format(record), highlight=False, soft_wrap=True)


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Leave out progress and remarks, or show the package's log; what was asked for stays."""
    from vcmbench.errors import VcmbenchError

    log = logging.getLogger("vcmbench")
    quiet, verbose = quiet or messages.quiet, verbose or log.level == logging.DEBUG
    if quiet and verbose:
        raise VcmbenchError("--quiet and --verbose: found both, expected one of them")
    messages.quiet = quiet
    log.setLevel(logging.DEBUG if verbose else logging.ERROR)
    if verbose and not log.handlers:
        log.addHandler(_LogHandler())


@contextmanager
def resumable() -> Iterator[None]:
    """Say, when the block is interrupted, that its work is kept."""
    try:
        yield
    except KeyboardInterrupt:
        messages.print("interrupted: run the same command again to continue")
        raise


def print_json(value: object) -> None:
    """Print `value` as indented JSON, unstyled."""
    console.print(json.dumps(value, indent=2), highlight=False, soft_wrap=True)


def print_rows(title: str, rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows as a table or as JSON."""
    if as_json:
        print_json(rows)
    else:
        print_table(title, rows)


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows that share their keys as a table."""
    if not rows:
        console.print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(format_value(value) for value in row.values()))
    console.print(table)


def format_value(value: object) -> str:
    """Short text of a table cell."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {format_value(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(v) for v in value)
    return "–" if value is None else str(value)


@contextmanager
def spinner(title: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner whose text the yielded function sets."""
    with messages.status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")


@contextmanager
def stage_progress(*, visible: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Show one progress bar per stage; the yielded function takes (stage, done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=messages, transient=not messages.is_terminal, disable=not visible
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield update


@contextmanager
def training_progress(
    title: str, epochs: int, *, visible: bool
) -> Iterator[Callable[[int, float, float | None], None]]:
    """Show a bar over epochs; the yielded function takes (done, training meV, validation meV)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[errors]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, disable=not visible) as progress:
        task = progress.add_task(title, total=epochs, errors="")
        validation = ""

        def update(done: int, train_mev: float, validation_mev: float | None) -> None:
            nonlocal validation
            if validation_mev is not None:
                validation = f", validation {validation_mev:.3f} meV"
            errors = f"training {train_mev:.3f} meV{validation}"
            progress.update(task, completed=done, errors=errors)

        yield update
