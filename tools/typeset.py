"""Typeset mathematics, and terms that link to the glossary, for the pages: a hook of MkDocs.

Pages and docstrings write mathematics as the terminal does, W_L ⋯ W_1 or w^((1−γ)/2), so that they read well as plain
text. When the pages are built, such runs of running text become elements that hold the same in TeX, which KaTeX (in
docs/assets/katex) typesets in the browser; without scripts, and in the search index, the text stays what it was.
Code and headings are left alone. Displayed formulas are indented blocks that hold mathematics.
"""

from __future__ import annotations

import html
import re
import sys
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from plain_math import FUNCTIONS, OPERATORS, STRONG, pieces, to_tex

COMMAND = re.compile(r"^\s*(\$|[.\w/]*(python|pip|dlnphase|make|git|dask)\b)", re.M)
SKIPPED = {"code", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "script", "style", "svg", "button"}


class Glossary:
    """The terms of the glossary; links the first use of each on a page.

    Args:
        page: glossary.md; its headings of the third level are the terms.
    """

    def __init__(self, page: Path) -> None:
        terms = re.findall(r"^### (.+)$", page.read_text(encoding="utf-8"), re.M)
        self._anchors = {term.lower(): re.sub(r"[^\w-]+", "-", term.lower()) for term in terms}
        forms = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w-])({forms})(s?)(?![\w-])", re.I)
        self._used: set[str] | None = None

    def begin(self, linked: bool) -> None:
        """A new page; ``linked`` says whether its terms are to be links."""
        self._used = set() if linked else None

    def split(self, text: str) -> list[tuple[str | None, str]]:
        """A text in pieces: (anchor of a term that is used for the first time, or None; the text)."""
        out: list[tuple[str | None, str]] = []
        done = 0
        for found in self._pattern.finditer(text) if self._used is not None else ():
            anchor = self._anchors[found[1].lower()]
            if anchor not in self._used:
                self._used.add(anchor)
                out += [(None, text[done : found.start()]), (anchor, found[0])]
                done = found.end()
        return [*out, (None, text[done:])]


class _Pages(Treeprocessor):
    """Puts elements with TeX where mathematics is, and links to the glossary where a page first uses a term."""

    def __init__(self, md: Markdown, glossary: Glossary) -> None:
        super().__init__(md)
        self._glossary = glossary

    def run(self, root: etree.Element) -> None:
        """Walk the page."""
        self._walk(root, linked=True)

    def _walk(self, element: etree.Element, linked: bool) -> None:
        if element.tag in SKIPPED or "tex" in element.get("class", ""):
            return
        linked = linked and element.tag not in ("a", "th")
        children = list(element)
        self._expand(element, None, element.text, linked)
        for child in children:
            self._walk(child, linked)
            self._expand(element, child, child.tail, linked)

    def _expand(self, parent: etree.Element, before: etree.Element | None, text: str | None, linked: bool) -> None:
        """Replace the text after a child (None: before the first) by text and elements."""
        if not text or "\x02" in text:
            return
        plain = ""
        for made, piece in self._elements(text, linked):
            if made is None:
                plain += piece
                continue
            _put(parent, before, plain)
            parent.insert(0 if before is None else list(parent).index(before) + 1, made)
            plain, before, made.text = "", made, piece
        _put(parent, before, plain)

    def _elements(self, text: str, linked: bool) -> Iterator[tuple[etree.Element | None, str]]:
        for math, piece in pieces(text):
            if math:
                yield etree.Element("span", {"class": "tex", "data-tex": to_tex(piece)}), piece
                continue
            for anchor, words in self._glossary.split(piece) if linked else [(None, piece)]:
                link = None if anchor is None else {"class": "term", "href": f"glossary.md#{anchor}"}
                yield (None if link is None else etree.Element("a", link)), words


def _put(parent: etree.Element, before: etree.Element | None, text: str) -> None:
    if before is None:
        parent.text = text
    else:
        before.tail = text


def displayed(markdown: str) -> str:
    """Indented blocks of formulas as elements with TeX; blocks of code, and what is fenced, stay as they are."""
    fenced = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else _BLOCK.sub(_formula, part) for part in fenced)


_BLOCK = re.compile(r"(?<=\n\n)((?: {4}\S.*\n)+)(?=\n|\Z)")


def _formula(block: re.Match[str]) -> str:
    lines = [line.strip() for line in block[1].splitlines()]
    if COMMAND.search(block[1]) or not set(block[1]) & (STRONG - set("_*=^+")):
        return block[0]
    tex = r" \\ ".join(r" \qquad ".join(map(_phrase, re.split(r"\s{3,}", line))) for line in lines)
    attribute = html.escape(tex, quote=True)
    return f'<div class="tex display" data-tex="{attribute}">{html.escape(" ".join(lines))}</div>\n'


def _phrase(text: str) -> str:
    """A part of a displayed line: formulas, and a word or two that introduces them."""
    word = re.match(r"([A-Za-z]{3,})( +(?=\S)|$)", text)
    if word and word[1] not in FUNCTIONS | OPERATORS:
        return rf"\text{{{word[1]} }} {to_tex(text[word.end() :])}"
    return to_tex(text)


class Typeset(Extension):
    """The extension of Python-Markdown that the hook adds."""

    def __init__(self, glossary: Glossary) -> None:
        super().__init__()
        self._glossary = glossary

    def extendMarkdown(self, md: Markdown) -> None:
        """Run after inline patterns, on finished elements."""
        md.treeprocessors.register(_Pages(md, self._glossary), "typeset", 3)


_GLOSSARY = Glossary(Path(__file__).resolve().parent.parent / "docs" / "glossary.md")


def on_config(config: Any) -> Any:
    """MkDocs calls this once: the extension joins those of mkdocs.yml."""
    config["markdown_extensions"].append(Typeset(_GLOSSARY))
    return config


def on_post_page(output: str, **_: Any) -> str:
    """MkDocs calls this last: what lets the search work from files comes with the pages, not from outside."""
    return output.replace("https://unpkg.com/iframe-worker/shim", "assets/iframe-worker/shim.js")


def on_post_template(output: str, **_: Any) -> str:
    """MkDocs calls this for the page that is shown where there is none."""
    return on_post_page(output)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs calls this before each page: the glossary and the generated references link nothing."""
    _GLOSSARY.begin(not page.file.src_path.startswith(("glossary", "reference")))
    return displayed(markdown)
