"""The page itself: overview, figures, tables, settings and provenance of any number of results, in one HTML file."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import dlnphase
from dlnphase.plotting.data import FigureData
from dlnphase.plotting.html.live import live_data
from dlnphase.plotting.html.markup import Markup, element, joined, script_data
from dlnphase.plotting.html.tables import Table, tables_of
from dlnphase.plotting.listing import overview
from dlnphase.plotting.sources import ResultSource, settings_words
from dlnphase.results.codec import encode
from dlnphase.results.schema import result_text
from dlnphase.results.train import TrainResult
from dlnphase.settings.plot import FIGURES

# Nothing is fetched from anywhere, whatever a file that is drawn may hold.
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LARGE = 250_000  # bytes of a table from which its download is compressed
LONG = 24  # letters of a cell from which it is text that wants room
WIDE = 480.0  # points of a picture from which it takes a whole row
LIVE = ("loss", "singular-values", "path")
COMMANDS = {"train": "Training run", "detect-saddles": "Saddles on a path", "sweep-gamma": "Phase sweep"}


@dataclass(frozen=True)
class Panel:
    """A figure of the page.

    Attributes:
        kind: of the figure.
        sources: what it shows.
        picture: SVG.
        caption: under it.
        data: what it is drawn from.
    """

    kind: str
    sources: tuple[ResultSource, ...]
    picture: bytes
    caption: str
    data: FigureData


def moves(kinds: Sequence[str]) -> bool:
    """Whether any of these figures moves, so that the page needs the library."""
    return any(kind in LIVE for kind in kinds)


def page(sources: Sequence[ResultSource], panels: Sequence[Panel], notes: Sequence[str], library: str) -> str:
    """The HTML document; the same text for the same results.

    Args:
        sources, panels: what it tells, and its figures.
        notes: on figures that could not be drawn.
        library: compressed, or "" for a page in which nothing moves.
    """
    title = f"{', '.join(dict.fromkeys(s.name for s in sources[:3]))}{' and more' if len(sources) > 3 else ''}"
    scripts: list[Markup] = []
    live = live_data(sources) if library and moves([panel.kind for panel in panels]) else {"runs": []}
    if live["runs"]:
        packed = element("script", Markup(library), type="text/plain", id="library")
        scripts = [script_data(live, id="live"), packed, element("script", Markup(_part("page.js")))]
    body = [
        element(
            "header", element("h1", title), element("p", _made_by(sources), class_="made"), _contents(sources, panels)
        ),
        element("main", _overview(sources), _figures(panels, notes), [_result(k, s) for k, s in enumerate(sources)]),
        scripts,
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"dlnphase {dlnphase.__version__}"),
        element("title", f"{title} – dlnphase"),
        element("style", Markup(_part("page.css"))),
    ]
    return "<!doctype html>\n" + element("html", element("head", head), element("body", body), lang="en") + "\n"


def _part(name: str) -> str:
    return files("dlnphase.plotting.html").joinpath(name).read_text(encoding="utf-8")


def _made_by(sources: Sequence[ResultSource]) -> str:
    makers = dict.fromkeys(s.result.provenance.dlnphase for s in sources)
    count = f"{len(sources)} results" if len(sources) > 1 else "One result"
    return (
        f"{count} of dlnphase {', '.join(makers)}. This page holds everything it shows and asks nothing of a network."
    )


def _contents(sources: Sequence[ResultSource], panels: Sequence[Panel]) -> Markup:
    links = [element("a", FIGURES[p.kind].title, href=f"#figure-{p.kind}") for p in panels]
    links += [element("a", f"{COMMANDS[s.kind]}: {s.name}", href=f"#result-{k}") for k, s in enumerate(sources)]
    return element("nav", links, aria_label="Contents")


def _overview(sources: Sequence[ResultSource]) -> Markup:
    if len(sources) == 1:
        return element("p", overview(sources)[0].outcome, class_="lead")
    rows = [[row.name, row.command, row.settings, row.outcome] for row in overview(sources)]
    return element("section", _table(Table("Overview", ["result", "of", "settings that differ", "outcome"], rows)))


def _figures(panels: Sequence[Panel], notes: Sequence[str]) -> Markup:
    made = [_figure(panel) for panel in panels]
    left = element("p", "; ".join(notes), class_="words") if notes else None
    return element("section", element("h2", "Figures"), element("div", made, class_="figures"), left)


def _figure(panel: Panel) -> Markup:
    picture = _base64(panel.picture)
    name = FIGURES[panel.kind].title
    words = f"{name}: {panel.caption}"
    download = _download(panel)
    return element(
        "figure",
        element("h3", name),
        element("img", src=f"data:image/svg+xml;base64,{picture}", alt=words, class_="still"),
        element("figcaption", panel.caption, " ", download),
        id=f"figure-{panel.kind}",
        class_="wide" if _width(panel.picture) > WIDE else None,
        data_live=panel.kind if panel.kind in LIVE else None,
    )


def _download(panel: Panel) -> Markup:
    """A link to the data of a figure, within the page; compressed where it is large."""
    data, name = panel.data.csv().encode(), f"{panel.kind}.csv"
    if len(data) <= LARGE:
        address, words = f"data:text/csv;charset=utf-8;base64,{_base64(data)}", "data (csv)"
    else:
        address, words = f"data:application/gzip;base64,{_base64(gzip.compress(data, mtime=0))}", "data (csv, gzip)"
        name += ".gz"
    return element("a", words, href=address, download=name, class_="download")


def _width(picture: bytes) -> float:
    """Of an SVG as matplotlib writes it, in points; 0 where it does not say."""
    found = re.search(rb'<svg[^>]* width="([0-9.]+)pt"', picture[:4000])
    return float(found.group(1)) if found else 0.0


def _result(k: int, source: ResultSource) -> Markup:
    result = source.result
    words = _sentence(result)
    sentence = element("p", words, class_="lead") if words else None
    notes = [element("p", f"Note: {note}.", class_="words") for note in getattr(result, "notes", ())]
    settings = _pairs("Settings", result.config.to_plain())
    provenance = _pairs("Provenance", encode(result.provenance))
    task = encode(result.task)
    network = encode(getattr(result, "network", None)) or {}
    return element(
        "section",
        element("h2", f"{COMMANDS[source.kind]}: {source.name}"),
        element("p", settings_words(source), class_="words"),
        sentence,
        [_table(table) for table in tables_of(result)],
        notes,
        element("div", settings, _pairs("Task and network", {**task, **network}), provenance, class_="pairs"),
        element(
            "details",
            element("summary", f"The whole of {source.path.name}"),
            element("pre", result_text(result)),
            class_="file",
        ),
        id=f"result-{k}",
    )


def _sentence(result: Any) -> str:
    if isinstance(result, TrainResult):
        from dlnphase.training.sentences import train_sentence

        return train_sentence(result)
    return ""


def _table(table: Table) -> Markup:
    head = element("tr", [element("th", name, scope="col") for name in table.columns])
    rows = [
        element(
            "tr",
            element("th", row[0], scope="row", class_="text" if len(row[0]) > LONG else None),
            [_cell(cell) for cell in row[1:]],
        )
        for row in table.rows
    ]
    body = element("table", element("thead", head), element("tbody", rows))
    words = element("p", table.words, class_="words") if table.words else None
    return element(
        "div", element("h3", table.title), element("div", body, class_="scroll", tabindex="0"), words, class_="table"
    )


def _cell(text: str) -> Markup:
    words = re.sub(r"e-(\d)", "e−\\1", text)  # a hyphen would let the exponent go to the next line
    return element("td", words, class_="text" if len(text) > LONG else None)


def _pairs(title: str, values: dict[str, Any]) -> Markup:
    shown = {key: value for key, value in values.items() if value is not None and value != [] and value != {}}
    rows = [(element("dt", key.replace("_", " ")), element("dd", _plain(value))) for key, value in shown.items()]
    return element("div", element("h3", title), element("dl", joined(rows)))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
