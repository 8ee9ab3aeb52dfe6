"""Typeset mathematics, and terms that link to the glossary, for the pages: a hook of MkDocs.

Pages and docstrings write mathematics as the terminal does, W_L ⋯ W_1 or w^((1−γ)/2), so that they read well as plain
text. When the pages are built, such runs of running text become elements that hold the same in TeX, which KaTeX (in
docs/assets/katex) typesets in the browser; without scripts, and in the search index, the text stays what it was.
Code and headings are left alone. Displayed formulas are indented blocks that hold mathematics.
"""

from __future__ import annotations

import html
import re
import unicodedata
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor


def _greek(letter: str) -> str:
    """The name that TeX has for a Greek letter: its own, as it is written in print."""
    _, size, _, name = unicodedata.name(letter).split()
    name = {"LAMDA": "lambda", "EPSILON": "varepsilon", "PHI": "varphi"}.get(name, name.lower())
    return name if size == "SMALL" else name.removeprefix("var").capitalize()


GREEK = {letter: _greek(letter) for letter in "αβγδεζηθκλμνξπρστφχψωΓΔΘΛΞΦΨΩ"}
SIGNS = {
    "−": "-",
    "·": r"\cdot ",
    "×": r"\times ",
    "⊗": r"\otimes ",
    "⋯": r"\cdots ",
    "…": r"\dots ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∝": r"\propto ",
    "→": r"\to ",
    "←": r"\leftarrow ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∂": r"\partial ",
    "∇": r"\nabla ",
    "∫": r"\int ",
    "±": r"\pm ",
    "≪": r"\ll ",
    "≫": r"\gg ",
    "⊥": r"\perp ",
    "∞": r"\infty ",
    "‖": r"\| ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "½": r"\tfrac12 ",
    "𝓛": r"\mathcal{L}",
    "<": r"\lt ",
    ">": r"\gt ",
    "%": r"\%",
    "⊂": r"\subset ",
    "∪": r"\cup ",
    "′": "'",
    "∼": r"\sim ",
    "~": r"\sim ",
    "ℝ": r"\mathbb{R}",
}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀⁿᵏ", [*"0123456789+-", r"\top ", "n", "k"], strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
ACCENTS = {"\u0302": "hat", "\u0307": "dot", "\u0303": "tilde", "\u0304": "bar"}
FUNCTIONS = {"exp", "ln", "log", "min", "max", "det", "arg"}
OPERATORS = {"rank", "tr", "span", "vec", "diag", "Id", "sign", "round"}
WORDS_BELOW = ("out", "min", "max", "test", "train", "end", "ROS", "in", "op")  # of a letter; else one letter is below
RELATIONS = set("=<>≤≥≠≈∝→←∈∉≪≫∼")
BINARY = RELATIONS | set("+−·×⊗⋯…±/")
STRONG = (set("_^") | set(GREEK) | set(RAISED) | set(LOWERED) | set(SIGNS) | set("√ΣΠ=+*")) - set("%…~×′") | {"𝓛"}
OPEN, CLOSE = "([{⟨⌊⌈", ")]}⟩⌋⌉"
COMMAND = re.compile(r"^\s*(\$|[.\w/]*(python|pip|dlnphase|make|git|dask)\b)", re.M)
SKIPPED = {"code", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "script", "style", "svg", "button"}


def to_tex(text: str) -> str:
    """One run of mathematics in TeX."""
    out, i = "", 0
    text = unicodedata.normalize("NFC", text)
    while i < len(text):
        c = text[i]
        if c in "_^":
            inner, i = _script(text, i + 1, c)
            out += f"{c}{{{inner}}}"
        elif c in RAISED or c in LOWERED:
            table, mark = (RAISED, "^") if c in RAISED else (LOWERED, "_")
            start = i
            while i < len(text) and text[i] in table:
                i += 1
            out += f"{mark}{{{''.join(table[x] for x in text[start:i])}}}"
        elif c == "√":
            inner, i = _argument(text, i + 1)
            out += rf"\sqrt{{{inner}}}"
        elif c == "*":
            out, i = out + "^{*}", i + 1
        elif c in "ΣΠ":
            summed = i + 1 < len(text) and (text[i + 1] in "_ (" or text[i + 1] in GREEK)
            out += {"Σ": (r"\Sigma ", r"\sum "), "Π": (r"\Pi ", r"\prod ")}[c][summed]
            i += 1
        elif c in "{}":
            out, i = out + "\\" + c, i + 1
        elif text.startswith("/dt ", i):
            out, i = out + r"/dt\,", i + 4
        elif word := re.match(r"[A-Za-z]+", text[i:]):
            out, i = out + _word(word[0]), i + len(word[0])
        else:
            out, i = out + _sign(c), i + 1
    return re.sub(r" +", " ", out).strip()


def _word(word: str) -> str:
    if word in FUNCTIONS:
        return f"\\{word} "
    return rf"\operatorname{{{word}}}" if word in OPERATORS else word


def _sign(c: str) -> str:
    if c in GREEK:
        return f"\\{GREEK[c]} "
    base = unicodedata.normalize("NFD", c)
    if len(base) == 2 and base[1] in ACCENTS:
        return rf"\{ACCENTS[base[1]]}{{{base[0]}}}"
    return SIGNS.get(c, c)


def _group(text: str, i: int) -> int:
    """The end of the bracket that opens at i, or -1."""
    depth = 0
    for j in range(i, len(text)):
        depth += (text[j] in OPEN) - (text[j] in CLOSE)
        if depth == 0:
            return j
    return -1


def _script(text: str, i: int, mark: str) -> tuple[str, int]:
    """What stands below or above, in TeX, and where it ends."""
    if i < len(text) and text[i] in ("{(" if mark == "^" else "{"):
        end = _group(text, i)
        if end > 0:
            return to_tex(text[i + 1 : end]), end + 1
    if mark == "_":
        for word in WORDS_BELOW:
            if text.startswith(word, i):
                return rf"\mathrm{{{word}}}", i + len(word)
        if text[i : i + 2] in ("ij", "ii") or text[i : i + 1] == "*":
            return text[i : i + 2].strip("‖"), i + len(text[i : i + 2].strip("‖"))
    found = re.match(r"[−+-]?(\d+|[^\W\d_]|𝓛)" if mark == "^" else r"\d+|\w", text[i:])
    if found is None:
        return "", i
    return to_tex(found[0]), i + len(found[0])


def _argument(text: str, i: int) -> tuple[str, int]:
    """What stands below a root, in TeX, and where it ends."""
    if i < len(text) and text[i] == "(":
        end = _group(text, i)
        if end > 0:
            return to_tex(text[i + 1 : end]), end + 1
    found = re.match(r"\d+|\w(_\w+)?", text[i:])
    return (to_tex(found[0]), i + len(found[0])) if found else ("", i)


# ---- where the mathematics is ----------------------------------------------------------------------------


def pieces(text: str) -> list[tuple[bool, str]]:
    """A running text as (is mathematics, text), in order; joined they are the text."""
    parts = re.split(r"(\s+)", text)
    kinds = [_kind(part) for part in parts]
    out: list[tuple[bool, str]] = []
    i = 0
    while i < len(parts):
        j = _run(parts, kinds, i)
        if j > i:
            before, run, after = _trimmed("".join(parts[i:j]))
            if run and _balanced(run) and not _plain(run, text, sum(map(len, parts[:i]))):
                out += [(False, before), (True, run), (False, after)]
                i = j
                continue
        out.append((False, parts[i]))
        i += 1
    return [piece for piece in out if piece[1]]


def _kind(part: str) -> str:
    """space, math, letter, number, function (a word too), operator or word."""
    if not part or part.isspace():
        return "space"
    if re.fullmatch(r"\[[A-Z]+[,\].;:]*", part):
        return "word"  # a source
    core = part.strip(".,;:!?()[]")
    if core and all(c in BINARY for c in core) and core != "/":
        return "operator"
    if re.fullmatch(r"[A-Za-z]|[A-Z]{2}|[a-zA-Z]\([a-zA-Z\d]|[a-z]/\(?[a-z\d]{1,2}", core) and core not in ("n/a",):
        return "letter"
    if re.fullmatch(r"\d+(\.\d+)?(/\d+)?", core):
        return "number"
    if core in FUNCTIONS | OPERATORS:
        return "function"
    if not set(unicodedata.normalize("NFC", core)) & STRONG and not any(_sign(c).startswith("\\") for c in core):
        return "word"
    bare = re.sub(rf"_({'|'.join(WORDS_BELOW)})|[\u0080-\U0010ffff_^]", " ", core)
    letters = [w for w in re.findall(r"[A-Za-z]+", bare) if w not in FUNCTIONS | OPERATORS]
    prose = any(len(w) > 3 or _SHORT_WORDS.fullmatch(w) for w in letters)
    return "word" if prose or re.search(r"[A-Za-z]-[A-Za-z]|[\x02\x03`]", part) else "math"


_SHORT_WORDS = re.compile("of|to|is|or|as|at|in|on|an|by|so|if|no|it|be|we|and|the|for|any|all|one|two|its|not", re.I)
_SIDE_BY_SIDE = {("math", "math"), ("math", "letter"), ("letter", "math"), ("number", "math")}
_SIDE_BY_SIDE |= {("function", "math"), ("function", "letter")}


def _run(parts: list[str], kinds: list[str], start: int) -> int:
    """Where the run of mathematics that begins at ``start`` ends; ``start`` itself where none does."""
    opens = kinds[start] == "operator" and kinds[start + 2 : start + 3] == ["math"]
    if kinds[start] not in ("math", "letter", "number") and not opens:
        return start
    end, depth, last = start, 0, start
    j = start
    while j < len(parts):
        if kinds[j] == "space":
            j += 1
            continue
        if kinds[j] == "word" or (j > start and depth == 0 and not _joined(parts, kinds, last, j)):
            break
        depth = max(0, depth + sum((c in OPEN) - (c in CLOSE) for c in parts[j]))
        last, j = j, j + 1
        if kinds[last] not in ("operator", "function"):
            end = last + 1
        if depth == 0 and parts[last][-1] in ".,;:!?":
            break
    return end


def _joined(parts: list[str], kinds: list[str], i: int, j: int) -> bool:
    """Whether two neighbours belong to one formula: an operator between them, or letters side by side."""
    if "operator" in (kinds[i], kinds[j]):
        return True
    if {parts[i], parts[j]} & {"a", "A", "I"}:
        return False
    two = parts[i].isupper() and parts[j].isupper()  # U S Vᵀ
    return (kinds[i], kinds[j]) in _SIDE_BY_SIDE or (two and kinds[i] == kinds[j] == "letter")


def _trimmed(run: str) -> tuple[str, str, str]:
    """Punctuation and brackets that belong to the sentence, off both ends."""
    before = after = ""
    while True:
        opened = sum(c in OPEN for c in run)
        closed = sum(c in CLOSE for c in run)
        if run and run[-1] in ".,;:!?":
            run, after = run[:-1], run[-1] + after
        elif run and run[-1] in CLOSE and (closed > opened or _wrapped(run)):
            if closed <= opened:
                before, run = before + run[0], run[1:]
            run, after = run[:-1], run[-1] + after
        elif (front := re.match(rf"[−+]?[{re.escape(OPEN)}]", run)) and opened > closed:
            before, run = before + front[0], run[front.end() :]
        else:
            return before, run, after


def _wrapped(run: str) -> bool:
    """Whether one pair of round or square brackets holds all of it."""
    return run[0] in "([" and _group(run, 0) == len(run) - 1


def _balanced(run: str) -> bool:
    stack = []
    for c in run:
        if c in OPEN:
            stack.append(CLOSE[OPEN.index(c)])
        elif c in CLOSE and (not stack or stack.pop() != c):
            return False
    return not stack and run.count("‖") % 2 == 0


def _plain(run: str, text: str, at: int) -> bool:
    """Whether a run that stands alone is better left as it is: numbers, articles, names of panels."""
    if re.fullmatch(r"[\d.,\s]+", run):
        return True
    if re.fullmatch(r"[A-Za-z](, [A-Za-z])+", run):
        return False
    if not re.fullmatch(r"[A-Za-z]", run):
        return not set(run) & (STRONG | RELATIONS | set("×")) and not any(_sign(c).startswith("\\") for c in run)
    around = text[max(0, at - 2) : at].rstrip()
    neighbours = text[max(0, at - 1) : at + 3]
    if run in "aI" or re.search(r"[(\[][A-Za-z][)\]]", neighbours + text[at : at + 3]) or text.strip() == run:
        return True
    return run == "A" and (not text[:at].strip() or around[-1:] in tuple(".:!?"))


# ---- pages -----------------------------------------------------------------------------------------------


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
