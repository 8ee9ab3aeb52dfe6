"""The cells of a text file as people keep them: encoding, which character separates, commas in numbers, comments."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

from dlnphase.errors import InputError
from dlnphase.results.yamlfile import MAX_BYTES, regular_file

# What pandas and R write or read as missing, and a question mark.
GAPS = {"", "nan", "-nan", "na", "n/a", "#n/a", "#na", "<na>", "none", "null", "?"}
DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
LOOKED_AT = 50  # lines that tell the separator

Line = tuple[int, list[str]]  # the number of a line in the file, and its cells


def read_cells(path: Path, where: str) -> tuple[list[Line], bool, list[str]]:
    """The lines of cells of a text file, without empty lines and comments.

    Args:
        where: what to call it in messages.

    Returns:
        Lines, whether commas are decimal points in them, and notes on what was read in another way than it looks.

    Raises:
        InputError: for a file that cannot be read, is no text, or has numbers that can be read in two ways.
    """
    return _parsed(_decoded(path, where), where)


def cell_value(cell: str, comma: bool) -> float | None:
    """A number, NaN for a gap, None for anything else."""
    word = cell.strip()
    if word.lower() in GAPS:
        return math.nan
    if comma:
        word = word.replace(",", ".") if DECIMAL_COMMA.fullmatch(word) or "," not in word else "x"
    if "_" in word:
        return None
    try:
        return float(word)
    except ValueError:
        return None


def file_name(where: str) -> str:
    """The name of the file without the option in front of it."""
    return Path(where.split(": ", 1)[-1]).name


def _decoded(path: Path, where: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as spreadsheets write it."""
    size = regular_file(path, where)
    if size > MAX_BYTES:
        raise InputError(f"{where}: found {size / 2**20:.0f} MiB, expected at most {MAX_BYTES // 2**20} MiB as text")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start} is not UTF-8, expected text (Excel: CSV UTF-8)") from None
    if "\0" in text:
        raise InputError(f"{where}: found binary data, expected text")
    return text


def _parsed(text: str, where: str) -> tuple[list[Line], bool, list[str]]:
    """Lines of cells without empty lines and comments, whether commas are decimal points, and notes."""
    skipped = 0
    if match := re.match(r"sep=(.)\r?\n", text):  # a word of Excel to itself
        separator: str | None = match[1]
        text, skipped = text[match.end() :], 1
    else:
        separator = _separator(text)
    lines = [(number + skipped, cells) for number, cells in _split(text, separator, where)]
    lines = _without_comments(lines, blanks=separator is None)
    comma = False
    cells = [(number, cell.strip()) for number, line in lines for cell in line if "," in cell]
    decimal = [(number, cell) for number, cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    if decimal and separator == "," and all(THOUSANDS.fullmatch(cell) for _, cell in decimal):
        number, cell = decimal[0]
        raise InputError(
            f"{where}: line {number}: found {cell}, whose comma may set off thousands or decimals; expected 1234.5"
        )
    if decimal:
        comma = True
        for number, line in lines:
            for cell in line:
                if "." in cell and cell_value(cell, False) is not None:
                    raise InputError(
                        f"{where}: line {number}: found {cell.strip()} with a decimal point, and "
                        f"{decimal[0][1]} in line {decimal[0][0]} with a decimal comma, expected one of the two"
                    )
    return lines, comma, [f"{file_name(where)}: commas are read as decimal points"] if comma else []


def _split(text: str, separator: str | None, where: str, limit: int | None = None) -> Iterable[Line]:
    """Cells of each line that is not empty; without a separator, what stands between blanks."""
    if separator is None:
        for number, line in enumerate(text.splitlines()[:limit], 1):
            if line.strip():
                yield number, line.split()
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for cells in reader:
            if limit is not None and reader.line_num > limit:
                return
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{where}: line {reader.line_num}: {error}, expected lines of numbers") from None


def _separator(text: str) -> str | None:
    """The character under which most cells are numbers; None stands for blanks."""
    best: tuple[float, str | None] = (-1.0, None)
    for candidate in ("\t", ";", ",", None):
        try:
            lines = [cells for _, cells in _split(text, candidate, "", LOOKED_AT)]
        except InputError:
            continue
        cells = [cell for line in lines for cell in line]
        if not cells or max(len(line) for line in lines) < 2:
            continue
        good = [cell_value(cell, "," in cell and candidate != ",") is not None for cell in cells]
        share = sum(good) / len(good)
        if share > best[0]:
            best = share, candidate
    return best[1] if best[0] >= 0 else ","


def _without_comments(lines: list[Line], *, blanks: bool) -> list[Line]:
    """Without the lines in front that begin with ``#``, unless they name the columns, as numpy.savetxt writes them."""
    out = list(lines)
    while len(out) > 1 and out[0][1][0].lstrip().startswith("#"):
        number, cells = out[0]
        names = [cells[0].lstrip().removeprefix("#").strip(), *cells[1:]]
        names = names if names[0] else names[1:]
        width = len(out[1][1])
        if len(names) == width - 1 and cells[0].strip() == "#" and not blanks:
            return out  # a column of that name
        if len(names) == width and not out[1][1][0].lstrip().startswith("#"):
            return [(number, names), *out[1:]]
        out.pop(0)
    return out
