"""A matrix as people keep it in a text file: what are names of columns and labels of rows, and what are numbers.

A file is never learned with its labels in silence: what is left out is told, and what could be labels or numbers is
refused with the two options that say which.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlnphase.errors import InputError
from dlnphase.results.textcells import Line, cell_value, file_name, read_cells
from dlnphase.results.yamlfile import regular_file

UNNAMED = re.compile(r"|unnamed: 0", re.I)  # what pandas and R call an index that has no name
IDENTIFIER = re.compile(r"index|idx|id|nr|no\.?|#|row|key|.*[ _-]id|.*[a-z]I[dD]", re.I)
WHOLE = re.compile(r"[+-]?\d+")
COUNTED = 3  # as many numbers in a row, each one more than the last, are no chance
MANY = 5  # as many decimals in equal steps are none either
SHOWN = 3  # labels that a message quotes


@dataclass(frozen=True)
class MatrixTable:
    """A matrix with the names that it came with.

    Attributes:
        values: shape (d_out, d_in); NaN where nothing is known.
        rows, columns: labels of its rows and names of its columns, or ().
        corner: the name of the column of labels.
        notes: what was left out or read in a way that a user should know.
    """

    values: np.ndarray
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    corner: str = ""
    notes: tuple[str, ...] = ()

    def csv(self) -> str:
        """Comma-separated values with the names and labels; numbers keep every digit, NaN is left empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        if self.columns:
            writer.writerow([self.corner, *self.columns] if self.rows else self.columns)
        for k, row in enumerate(self.values):
            cells = ["" if math.isnan(v) else repr(float(v)) for v in row]
            writer.writerow([self.rows[k], *cells] if self.rows else cells)
        return stream.getvalue()

    @classmethod
    def read(cls, path: Path, shape: tuple[int, int]) -> MatrixTable:
        """What :meth:`csv` wrote of a matrix of this shape, which tells names and labels from numbers.

        Raises:
            InputError: for a file that does not hold one.
        """
        regular_file(path, str(path))
        try:
            body = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        tall, wide = len(body) - shape[0], len(body[0]) - shape[1] if body else 0
        if {tall, wide} <= {0, 1} and {len(cells) for cells in body} == {shape[1] + wide}:
            values = [[cell_value(cell, False) for cell in cells[wide:]] for cells in body[tall:]]
            if all(value is not None for row in values for value in row):
                names = body[0] if tall else []
                corner = names[0] if wide and names else ""
                return cls(np.array(values), tuple(row[0] for row in body[tall:] if wide), tuple(names[wide:]), corner)
        size = f"{shape[0]} × {shape[1]}"
        raise InputError(
            f"{path}: expected a matrix of {size} numbers, with names of columns and labels of rows or without"
        )


def read_matrix_text(
    path: Path,
    where: str,
    *,
    header: bool | None = None,
    index_column: str | None = None,
    label_column: str | None = None,
) -> MatrixTable:
    """The matrix of a text file.

    Args:
        where: what to call it in messages.
        header: whether the first line holds names; None tells it from the file.
        index_column: columns to leave out, by number from 1 or by name, with commas between; ``none`` learns all, None
            tells it from the file.
        label_column: the column of classes, which is given back as the labels of rows; None: there is none.

    Raises:
        InputError: for text that is no matrix, and where labels and numbers cannot be told apart.
    """
    lines, comma, notes = read_cells(path, where)
    names, body = _names(lines, where, header, comma)
    if not body:
        raise InputError(f"{where}: found no line of numbers, expected a matrix")
    width = len(body[0][1])
    classes = () if label_column is None else _wished(label_column, names, width, where, "label-column")
    left_out, words = _index(names, body, where, index_column, comma, classes)
    kept = [k for k in range(width) if k not in left_out and k not in classes]
    left_out = classes or left_out
    values = np.array([_numbers(line, kept, names, body, where, comma) for line in body])
    if names is not None and header is None and any(cell_value(name, comma) is not None for name in names if name):
        notes.append(f"{file_name(where)}: the first line ({_quoted(names)}) names the columns; --no-header learns it")
    notes = [*notes, *words]
    labels: tuple[str, ...] = ()
    if left_out:
        labels = tuple(line[1][left_out[0]].strip() for line in body)
    columns = tuple(names[k] for k in kept) if names is not None else ()
    corner = names[left_out[0]] if names is not None and left_out else ""
    return MatrixTable(values, labels, columns, corner, tuple(notes))


def _names(lines: list[Line], where: str, header: bool | None, comma: bool) -> tuple[list[str] | None, list[Line]]:
    """The names of the columns, or None, and the lines below them; all lines have as many cells then."""
    if not lines:
        return None, []
    first, width = lines[0][1], len(lines[0][1])
    wider = {len(cells) for _, cells in lines[1:]} == {width + 1}
    if wider and header is not False and any(cell_value(cell, comma) is None for cell in first):
        width += 1  # as R writes a table: the column of labels has no name
        lines = [(lines[0][0], ["", *first]), *lines[1:]]
    for number, cells in lines:
        if len(cells) != width:
            count = f"{len(cells)} cell" + "s" * (len(cells) != 1)
            raise InputError(f"{where}: line {number} has {count}, expected {width} like the first line")
    if header is None:
        header = _has_header(lines, where, comma)
    return ([cell.strip() for cell in lines[0][1]], lines[1:]) if header else (None, lines)


def _has_header(lines: list[Line], where: str, comma: bool) -> bool:
    number, first = lines[0]
    values = [cell_value(cell, comma) for cell in first]
    words = [value is None for value in values]
    labelled = len(lines) > 1 and all(cell_value(cells[0], comma) is None for _, cells in lines[1:])
    rest = first[1:] if labelled or not first[0].strip() else first
    counted = _counts([cell.strip() for cell in rest])
    if not any(words):
        below = labelled or _labels(cells[0] for _, cells in lines[1:])
        if not first[0].strip() and below and counted:
            return True  # no name above a column of labels, and then 0, 1, 2, …: a data frame of pandas
        if len(rest) < len(first):
            if not (below and _labels(rest) and min(len(rest), len(lines) - 1) >= COUNTED):
                return False
        elif not _in_steps(rest, comma) or any(_in_steps(cells, comma) for _, cells in lines[1:]):
            return False  # numbers, or a matrix whose lines are all in order
        elif not (counted and rest[0].strip() == "0") and not _unlike(rest, [cells for _, cells in lines[1:]]):
            return False
    elif len(lines) > 1 and (any(words[1:]) or not labelled):
        return not any(_fraction(cell) for cell in first)  # else told as the cell that it is
    elif len(lines) == 1:
        return all(words)
    elif len(rest) < COUNTED or not counted:
        return False  # a label and its numbers, like the lines below
    elif IDENTIFIER.fullmatch(first[0].strip()) or any(_fraction(cell) for _, cells in lines[1:] for cell in cells[1:]):
        return True  # whole numbers in order above others that are none
    raise InputError(
        f"{where}: line {number} reads {_quoted(first)}: names of columns, or numbers? "
        "--header leaves it out, --no-header learns it"
    )


def _index(
    names: list[str] | None, body: list[Line], where: str, wish: str | None, comma: bool, classes: tuple[int, ...]
) -> tuple[tuple[int, ...], list[str]]:
    """The columns to leave out beside those of classes, and what to tell about them."""
    width = len(body[0][1])
    if wish is not None:
        found = () if wish.lower() == "none" else _wished(wish, names, width, where, "index-column")
        return found, []
    if classes:  # the first of the others may be labels
        if 0 in classes:
            return (), []
        names = None if names is None else [name for k, name in enumerate(names) if k not in classes]
        body = [(number, [cell for k, cell in enumerate(cells) if k not in classes]) for number, cells in body]
        width = len(body[0][1])
    if width < 2:
        return (), []
    cells = [line[1][0].strip() for line in body]
    words = all(cell_value(cell, comma) is None for cell in cells)
    whole = _labels(cells)
    name = names[0] if names is not None else None
    called = f" ({name})" if name else ""
    if words or (name is not None and whole and (UNNAMED.fullmatch(name) or IDENTIFIER.fullmatch(name))):
        told = f"{file_name(where)}: the first column{called} holds labels ({_quoted(cells)}) and is left out"
        return (0,), [told + ("" if words else "; --index-column none learns it")]
    unnamed = name is not None and UNNAMED.fullmatch(name) and any(names[1:] if names else ())
    others = any(_counts([line[1][k].strip() for line in body]) for k in range(1, width))
    counts = len(cells) >= COUNTED and _counts(cells) and cells[0] in ("0", "1") and not others
    if unnamed or counts:
        what = "has no name" if unnamed else "counts"
        raise InputError(
            f"{where}: the first column{called} {what} ({_quoted(cells)}): labels of rows, or numbers? "
            "--index-column 1 leaves it out, --index-column none learns it"
        )
    alone = whole and not any(_labels(line[1][k] for line in body) for k in range(1, width))
    if alone and len(cells) >= COUNTED:
        told = f"{file_name(where)}: the first column{called} is learned as numbers ({_quoted(cells)})"
        return (), [f"{told}; --index-column 1 leaves it out"]
    return (), []


def _wished(wish: str, names: list[str] | None, width: int, where: str, option: str) -> tuple[int, ...]:
    out = []
    for word in [wish] if names is not None and wish in names else wish.split(","):
        word = word.strip()
        if word.isdecimal() and 1 <= int(word) <= width:
            out.append(int(word) - 1)
        elif names is not None and word in names:
            out.append(names.index(word))
        else:
            there = f" or one of {', '.join(names[:6])}" + (", …" if len(names) > 6 else "") if names else ""
            raise InputError(f"{option}: found {word}, but {file_name(where)} has columns 1 to {width}{there}")
    if len(set(out)) >= width:
        raise InputError(f"{option}: found {wish}, which leaves no column of {file_name(where)}")
    return tuple(out)


def _numbers(
    line: Line, kept: Sequence[int], names: list[str] | None, body: list[Line], where: str, comma: bool
) -> list[float]:
    """The numbers of one line."""
    out = []
    for k in kept:
        value = cell_value(line[1][k], comma)
        if value is None:
            word = line[1][k].strip()[:40]
            if len(body) > 1 and all(cell_value(cells[k], comma) is None for _, cells in body):
                called = f" ({names[k]})" if names is not None and names[k] else ""
                columns = ",".join(str(c + 1) for c in range(k + 1) if c == k or c not in kept)
                raise InputError(
                    f"{where}: column {k + 1}{called} holds words such as {word!r}, expected numbers; "
                    f"--index-column {columns} leaves it out"
                )
            raise InputError(f"{where}: line {line[0]}: found {word!r}, expected a number or an empty cell")
        out.append(value)
    return out


def _labels(cells: Iterable[str]) -> bool:
    """Whether cells are whole numbers, none of them twice."""
    words = [cell.strip() for cell in cells]
    return bool(words) and all(WHOLE.fullmatch(word) for word in words) and len(set(words)) == len(words)


def _counts(words: Sequence[str]) -> bool:
    """Whether words are whole numbers, each one more than the last."""
    if not words or not all(WHOLE.fullmatch(word) for word in words):
        return False
    return all(int(b) == int(a) + 1 for a, b in itertools.pairwise(words))


def _in_steps(cells: Sequence[str], comma: bool) -> bool:
    """Whether cells are numbers that rise by equal steps: 0, 1, 2 or 2015, 2016, 2017 or 0.1, 0.2, 0.3."""
    values = [cell_value(cell, comma) for cell in cells]
    known = np.array([math.nan if value is None else value for value in values])
    steps = np.diff(known)
    return bool(len(known) >= COUNTED and steps[0] > 0 and np.ptp(steps) <= 1e-9 * np.abs(known).max())


def _unlike(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether numbers in equal steps are no numbers like those below: whole above others, or many with decimals."""
    if all(WHOLE.fullmatch(cell.strip()) for cell in first):
        return any(_fraction(cell) for cells in others for cell in cells)
    return len(first) >= MANY


def _fraction(cell: str) -> bool:
    """Whether a cell is a number with decimals, which no name is."""
    word = cell.strip()
    value = cell_value(word, "," in word)
    return value is not None and not math.isnan(value) and not WHOLE.fullmatch(word)


def _quoted(cells: Sequence[str]) -> str:
    shown = ", ".join(cell.strip()[:20] or "(empty)" for cell in cells[:SHOWN])
    return shown + (", …" if len(cells) > SHOWN else "")
