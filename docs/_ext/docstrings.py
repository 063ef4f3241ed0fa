"""Docstrings as the package writes them: |x| is a modulus, ``(n_sites, 3)`` a shape and no link."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

_LITERAL = re.compile(r"(``.*?``)")


def keep_bars(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Escape bars outside of literals: reStructuredText reads them as substitutions."""
    literal_indent: int | None = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_indent is not None and line.strip() and indent <= literal_indent:
            literal_indent = None
        if literal_indent is None:
            parts = _LITERAL.split(line)
            parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
            lines[number] = "".join(parts)
            if line.rstrip().endswith("::"):
                literal_indent = indent


_INLINE = ("attribute", "data", "property")
_SHARED = re.compile(r"^:(ivar|vartype) (\w+(?:, \w+)+):((?:.*)(?:\n[ \t]+.*)*)", re.MULTILINE)


def keep_inline(
    app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Remember the docstring of an attribute: napoleon reads a type before its first colon."""
    if what in _INLINE:
        app.env.temp_data[f"docstring of {name}"] = list(lines)


def restore(
    app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Put it back, and give each of several attributes that share an entry one of its own."""
    if what in _INLINE:
        lines[:] = app.env.temp_data.pop(f"docstring of {name}")
        return
    text = _SHARED.sub(
        lambda found: "\n".join(f":{found[1]} {one}:{found[3]}" for one in found[2].split(", ")),
        "\n".join(lines),
    )
    lines[:] = text.split("\n")


def skip_tuple_fields(
    _app: Sphinx, _what: str, _name: str, member: Any, skip: bool, _options: Any
) -> bool | None:
    """Leave out the fields of a named tuple: its docstring lists them."""
    alias = (getattr(member, "__doc__", None) or "").startswith("Alias for field number")
    return True if alias and not skip else None


def unlink_shapes(_app: Sphinx, document: nodes.document) -> None:
    """Leave words of types alone that are no classes: `n_sites` in a shape is no attribute."""
    for reference in list(document.findall(pending_xref)):
        if reference.get("refspecific") and reference["reftarget"].islower():
            reference.replace_self(reference.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect them."""
    # Before napoleon, which runs at the default priority of 500.
    app.connect("autodoc-process-docstring", keep_bars, priority=400)
    app.connect("autodoc-process-docstring", keep_inline, priority=450)
    app.connect("autodoc-process-docstring", restore, priority=550)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("doctree-read", unlink_shapes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
