"""Tables, JSON and progress on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

console = Console()
"""Results go to standard output."""
messages = Console(stderr=True)
"""Progress and remarks go to standard error."""


def print_json(value: object) -> None:
    """Print `value` as indented JSON, unstyled."""
    console.print(json.dumps(value, indent=2), markup=False, highlight=False, soft_wrap=True)


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
