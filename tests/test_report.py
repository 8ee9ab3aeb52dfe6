"""The page that is sent: what it holds, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, program

import dlnphase
from dlnphase.cli.app import run
from dlnphase.plotting.data import FigureData
from dlnphase.plotting.html import library
from dlnphase.plotting.html.live import thinned
from dlnphase.plotting.html.markup import Markup, element, script_data
from dlnphase.plotting.html.page import Panel, _download
from dlnphase.plotting.sources import read_sources
from dlnphase.results.outdir import OutputDirectory
from dlnphase.results.sweep import SweepFile
from dlnphase.settings import TrainSettings
from dlnphase.training.keeping import Keeper
from dlnphase.training.run import _going, prepare

EXAMPLES = Path(__file__).resolve().parent / "data" / "schemas"
MEGABYTE = 1_000_000


def report(out: Path, *sources: Path, **settings: object) -> str:
    wanted = dlnphase.PlotSettings(source=[str(s) for s in sources], format="html", **settings)
    dlnphase.plot(wanted, out)
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default run, with a directory whose name would do harm if it were taken for HTML."""
    path = tmp_path_factory.mktemp("runs") / "a <img src=x onerror=alert(1)> & b"
    path.mkdir()
    dlnphase.save_train(dlnphase.train(dlnphase.TrainSettings()), path)
    return path


@pytest.fixture(scope="module")
def whole_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with as many cells as the default one has."""
    path, sweep = tmp_path_factory.mktemp("sweep"), dlnphase.load_sweep(EXAMPLES / "sweep-gamma@1")
    default = dlnphase.SweepSettings()
    cell = sweep.cells[0]
    cells = tuple(replace(cell, gamma=g, width=w) for g in default.gammas for w in default.widths)
    assert len(cells) == 56
    config = replace(sweep.config, gammas=default.gammas, widths=default.widths)
    SweepFile(path).save(replace(sweep, config=config, cells=cells, exponents=(), critical_gamma=None))
    return path


@pytest.fixture(scope="module")
def page(default_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    report(out, default_run)
    return out / "report.html"


def downloads(text: str) -> dict[str, str]:
    """The csv of every figure, by its kind."""
    found = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)" download="([^"]+)\.csv"', text)
    return {kind: base64.b64decode(data).decode() for data, kind in found}


# ---- what it holds ------------------------------------------------------------------------------------


def test_the_page_holds_every_figure_its_data_and_the_tables(page: Path, default_run: Path) -> None:
    text = page.read_text(encoding="utf-8")
    kinds = ["loss", "singular-values", "rank", "path", "saddles"]
    assert re.findall(r'<figure id="figure-([a-z-]+)"', text) == kinds
    assert list(downloads(text)) == kinds
    for picture in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text):
        assert base64.b64decode(picture).startswith(b"<?xml")
    result = dlnphase.load_train(default_run)
    for row in result.rank_transitions:
        assert f'<th scope="row">{row.from_rank} → {row.to_rank}</th><td>{row.time:.4g}</td>' in text
    for mode in result.modes:
        assert f'<th scope="row">{mode.mode}</th><td>{mode.size:.4g}</td><td>{mode.time:.4g}</td>' in text
    for word in (result.provenance.started, result.provenance.torch, "Rank transitions", "observed"):
        assert word in text
    assert text.count("<figcaption>") == len(kinds) and "γ = 2" in text


def test_the_page_of_the_default_run_and_sweep_is_small_and_always_the_same(
    page: Path, default_run: Path, whole_sweep: Path, tmp_path: Path
) -> None:
    assert page.stat().st_size < 6 * MEGABYTE
    once, again = (report(tmp_path / name, default_run, kind="loss") for name in ("once", "again"))
    assert once == again and 'id="library"' in once
    text = report(tmp_path / "sweep", whole_sweep)
    assert len(text.encode()) < 6 * MEGABYTE
    assert 'id="library"' not in text  # nothing moves in it
    assert len(re.findall(r'<tr><th scope="row">[0-9.]+</th><td>1e\+0', text)) > 0


def test_nothing_of_a_user_becomes_markup_and_nothing_is_asked_of_a_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text and "&lt;img src=x onerror=alert(1)&gt; &amp; b" in text
    assert 'content="default-src &#x27;none&#x27;;' in text
    outside = re.sub(r'<script type="text/plain" id="library">.*?</script>', "", text)
    outside = re.sub(r"<script>.*?</script>", "", outside, flags=re.S)
    assert not re.search(r'(src|href)="(?!data:|#)', outside)
    assert element("p", "<b>", Markup("<i></i>"), title='"') == '<p title="&quot;">&lt;b&gt;<i></i></p>'
    assert "</script><" not in script_data({"a": "</script><script>"})[:-9]


def test_saddles_batches_and_several_results_share_a_page(tmp_path: Path) -> None:
    names = ("train@1", "train-seeds@1", "detect-saddles@1", "sweep-gamma@1")
    kinds = ("loss", "saddles", "phase")
    text = report(tmp_path, *(EXAMPLES / name for name in names), kind=kinds)
    assert re.findall(r'<section id="result-(\d)"', text) == list("0123")
    for words in ("Overview", "Certificates of the critical points", "Starts", "Slopes d log", "Cells"):
        assert f"<h3>{words}" in text
    found = dlnphase.load_detect(EXAMPLES / "detect-saddles@1")
    for visit in found.visits:
        assert visit.kind.replace("-", " ") in text
    assert re.findall(r'<figure id="figure-([a-z-]+)"', text) == list(kinds)


def test_without_plotly_a_line_says_how_to_get_it(default_run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    assert run(["plot", str(default_run), "--format", "html", "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "dlnphase[html]" in message
    assert not (tmp_path / "out").exists()


def test_thinning_keeps_the_ends() -> None:
    assert list(thinned(np.arange(10), 4)) == [0, 3, 6, 9]
    assert list(thinned(np.arange(3), 4)) == [0, 1, 2]


def test_numbers_of_a_table_keep_their_digits_and_words_their_commas() -> None:
    data = FigureData(("a", "b", "c"), [(0.1 + 0.2, "x, y", None), (3, 'say "z"', float("nan"))])
    assert data.csv() == 'a,b,c\n0.30000000000000004,"x, y",\n3,"say ""z""",\n'


def test_a_large_table_is_compressed_and_whole() -> None:
    data = FigureData(("k", "x"), [(k, 1 / (k + 1)) for k in range(20_000)])
    link = _download(Panel("loss", (), b"", "", data))
    (packed,) = re.findall(r'href="data:application/gzip;base64,([^"]+)"', link)
    assert 'download="loss.csv.gz"' in link and len(packed) < len(data.csv())
    assert gzip.decompress(base64.b64decode(packed)).decode() == data.csv()


# ---- in a browser -------------------------------------------------------------------------------------

browser_needed = pytest.mark.skipif(program() is None, reason="no Chromium here (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


SETTLED = "window.dlnphase.ready.then(() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50))))"


@browser_needed
@pytest.mark.parametrize(("width", "dark"), [(400, False), (1600, False), (1600, True)])
def test_it_opens_without_an_error_or_a_request_and_fits(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    browser.run(SETTLED)
    assert browser.errors == [] and browser.requests == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    pictures = browser.run("[...document.querySelectorAll('figure img')].map(i => i.naturalWidth)")
    assert len(pictures) == 5 and min(pictures) > 100
    charts = browser.run("[...document.querySelectorAll('.chart')].map(c => [c.data.length, c.clientWidth])")
    assert len(charts) == 3 and all(traces >= 3 and 200 < wide <= width for traces, wide in charts)
    ink = browser.run("getComputedStyle(document.body).color")
    assert (ink == "rgb(230, 233, 236)") == dark


@browser_needed
def test_the_slider_walks_along_the_path(browser: Browser, page: Path, default_run: Path) -> None:
    path = dlnphase.load_train(default_run).trajectory
    browser.open(page, 1600)
    browser.run(SETTLED)
    drag = """(k => { const s = document.querySelector('input[type=range]'); s.value = k;
        s.dispatchEvent(new Event('input')); const c = document.querySelector('#figure-path .chart');
        const point = c.data[c.data.length - 1]; return [document.querySelector('.readout').textContent, point.x[0],
        document.querySelector('#figure-loss .chart').layout.shapes.map(s => s.x0), Number(s.max)]; })"""
    seen = []
    for k in (0, 40, len(path.t) - 1):
        words, along, lines, last = browser.run(f"{drag}({k})")
        told = float(re.search(r"cost (\S+)", words).group(1).replace("−", "-"))
        assert told == pytest.approx(path.cost[k], rel=1e-3) and last == len(path.t) - 1
        assert len(lines) == 1  # the same moment in the figure of the cost
        seen.append((along, lines[0]))
    assert seen[0] < seen[1] < seen[2]
    assert browser.errors == []


@browser_needed
def test_decades_can_be_zoomed_and_axes_chosen(browser: Browser, page: Path) -> None:
    browser.open(page, 1600)
    browser.run(SETTLED)
    spans = "(() => { const c = document.querySelector('#figure-loss .chart'); return c.layout.yaxis.range; })()"
    before = browser.run(spans)
    x, y, wide, high = browser.run(
        "(() => { const r = document.querySelector('#figure-loss .chart .nsewdrag').getBoundingClientRect();"
        " return [r.x, r.y, r.width, r.height]; })()"
    )
    browser.mouse("mouseMoved", x + 0.3 * wide, y + 0.3 * high)
    browser.mouse("mousePressed", x + 0.3 * wide, y + 0.3 * high, buttons=1)
    for part in (0.4, 0.5, 0.6):
        browser.mouse("mouseMoved", x + part * wide, y + part * high, buttons=1)
    browser.mouse("mouseReleased", x + 0.6 * wide, y + 0.6 * high)
    browser.run("new Promise(done => setTimeout(done, 600))")
    after = browser.run(spans)
    assert before[0] < after[0] < after[1] < before[1]
    assert (after[1] - after[0]) / (before[1] - before[0]) == pytest.approx(0.3, abs=0.05)
    choose = """((k, value) => { const s = document.querySelectorAll('#figure-loss select')[k]; s.value = value;
        s.dispatchEvent(new Event('change')); const c = document.querySelector('#figure-loss .chart');
        return [c.layout.xaxis.type, c.layout.yaxis.type]; })"""
    assert browser.run(f"{choose}(0, 'log')")[0] == "log"
    assert browser.run(f"{choose}(1, 'linear')") == ["log", "linear"]
    assert browser.errors == []


@browser_needed
def test_it_is_whole_without_scripts_and_on_paper(browser: Browser, page: Path) -> None:
    seen = """[...document.querySelectorAll('figure .still')].map(i => getComputedStyle(i).display)"""
    browser.open(page, 1000, scripts=False)
    # Asked through the protocol: scripts of the page itself do not run.
    document = browser.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    nodes = browser.call("DOM.querySelectorAll", nodeId=document, selector="figure .still")["nodeIds"]
    boxes = [browser.call("DOM.getBoxModel", nodeId=node)["model"] for node in nodes]
    assert len(boxes) == 5 and min(box["height"] for box in boxes) > 100
    assert not browser.call("DOM.querySelectorAll", nodeId=document, selector=".chart")["nodeIds"]
    browser.open(page, 1000, dark=True)
    browser.run(SETTLED)
    assert browser.run(seen).count("none") == 3
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run(seen) == ["block"] * 5
    assert set(browser.run("[...document.querySelectorAll('.live')].map(i => getComputedStyle(i).display)")) == {"none"}
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    assert browser.printed().startswith(b"%PDF")


# ---- the listing --------------------------------------------------------------------------------------


def test_the_listing_has_a_line_for_every_result_below_a_directory(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["plot", "--list", str(EXAMPLES)]) == 0
    out = capsys.readouterr().out
    for source in read_sources([EXAMPLES]):
        (line,) = [line for line in out.splitlines() if line.startswith(f"{source.name} ")]
        assert source.kind in line
    run_line = next(line for line in out.splitlines() if line.startswith("train@1 "))
    result = dlnphase.load_train(EXAMPLES / "train@1")
    assert f"t = {result.outcome.time:.4g}" in run_line and str(result.outcome.regime) in run_line
    assert run(["plot", "--list", "--terminal", str(EXAMPLES)]) == 2


def test_the_listing_tells_a_run_that_has_no_result_yet(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLES / "train@1", tmp_path / "whole")
    (tmp_path / "whole" / "state.npz").touch()  # beside an interrupted result: the result is told
    (tmp_path / "torn").mkdir()
    prepared = prepare(TrainSettings(task="factorization", shape="3", rank=1, width=20, depth=2, seeds=2))
    Keeper(prepared, tmp_path / "torn", print).write(_going(prepared))
    assert run(["plot", "--list", "--json", "."]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in lines] == ["whole", "torn"]
    words = lines[1]["outcome"]
    assert words.startswith("killed 20") and words.endswith("s of work; dlnphase train --out torn --resume goes on")
    assert "factorization, L = 2, w = 20, γ = 2, flow, 2 starts" in lines[1]["settings"]
    with OutputDirectory(tmp_path / "torn", main="run.yaml", mode="resume"):
        assert run(["plot", "--list", "--json", "torn"]) == 0  # a directory of killed runs alone is listed, too
        (line,) = json.loads(capsys.readouterr().out)
        assert line["outcome"].startswith("under way") and f"(process {os.getpid()})" in line["outcome"]
    (tmp_path / "torn" / "state.npz").write_bytes(b"no state")
    assert run(["plot", "--list", "--json", "torn"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line["settings"] == "" and line["outcome"].startswith("killed 20") and "s of work" not in line["outcome"]
    assert run(["plot", "torn"]) == 2
    assert f"dlnphase train --out {tmp_path / 'torn'} --resume" in capsys.readouterr().err


def test_a_directory_without_any_result_is_told(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["plot", "--list", str(tmp_path)]) == 2
    assert "found none of run.yaml" in capsys.readouterr().err
