"""A dataset's card, which is Markdown, as a page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from vcmbench.release import Release
from vcmbench.release.card import CARD

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"[\w-]+\.(png|svg|jpg)")


class _Renderer(RendererHTML):
    """Tables scroll by themselves, and by the keyboard."""

    def __init__(self, parser: Any = None) -> None:
        super().__init__(parser)
        self._n_tables = 0

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        self._n_tables += 1
        label = f"Table {self._n_tables} of the card"
        return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return "</table></div>\n"


def card_html(release: Release, folder: Path, address: str) -> Markup:
    """Render the card of a release and copy its images.

    Parameters
    ----------
    release : Release
        Whose card.
    folder : Path
        Where images are copied to.
    address : str
        Address of that folder, relative to the page.

    Returns
    -------
    Markup
        HTML; what is HTML in the card is shown as text.
    """
    text = (release.folder / CARD).read_text(encoding="utf-8")
    text = _COMMENT.sub("", _FRONT_MATTER.sub("", text))
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.attrs["src"] = _image(str(child.attrs["src"]), release, folder, address)
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _image(source: str, release: Release, folder: Path, address: str) -> str:
    """Copy an image that lies beside the card; others are not shown."""
    if not _IMAGE.fullmatch(source) or source not in release.manifest.files:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(release.folder / source, folder / source)
    return f"{address}/{source}"
