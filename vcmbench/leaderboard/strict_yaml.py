"""YAML from strangers: plain mappings, lists and scalars, nothing that refers, tags or repeats."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from vcmbench.errors import VcmbenchError, bad_input

MAX_BYTES: Final = 100_000
MAX_DEPTH: Final = 10


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that takes no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"key {repeated[0]!r} stands twice in the mapping of line {line}")
        return super().construct_mapping(node, deep=deep)


def read_strict_yaml(path: Path) -> Any:
    """Read a YAML file as plain values.

    Raises
    ------
    VcmbenchError
        If it is too large, nested too deeply, no YAML, or holds an alias, an anchor, a tag, or a
        key twice: aliases expand without bounds, tags make objects.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VcmbenchError(f"{path.name}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise bad_input(
            path.name, "size", found=f"{len(content)} bytes", expected=f"at most {MAX_BYTES}"
        )
    try:
        text = content.decode("utf-8")
        _require_plain(path.name, text)
        return yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise VcmbenchError(f"{path.name}: not a plain YAML document ({detail})") from error


def _require_plain(name: str, text: str) -> None:
    """Look at the events alone, before anything is composed of them."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else "end"
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            raise bad_input(name, line, found=f"the alias *{anchor}", expected="no aliases")
        if anchor is not None:
            raise bad_input(name, line, found=f"the anchor &{anchor}", expected="no anchors")
        if tag is not None:
            raise bad_input(name, line, found=f"the tag {tag}", expected="no tags")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            raise bad_input(
                name, line, found="deeper nesting", expected=f"at most {MAX_DEPTH} levels"
            )
