"""Mathematics in plain text, found in sentences and written in TeX: what ``tools/typeset.py`` puts on the pages."""

from __future__ import annotations

import re
import unicodedata


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
