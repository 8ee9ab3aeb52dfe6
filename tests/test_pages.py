"""The pages: mathematics typeset from plain text, a glossary that terms link to, nothing loaded from outside."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import dlnphase

ROOT = Path(__file__).resolve().parent.parent
tool = runpy.run_path(str(ROOT / "tools" / "typeset.py"))
to_tex, pieces, displayed = tool["to_tex"], tool["pieces"], tool["displayed"]


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("A = W_L ⋯ W_1", r"A = W_{L} \cdots W_{1}"),
        ("w^−γ", r"w^{-\gamma}"),
        ("α = σ√w = w^((1−γ)/2)", r"\alpha = \sigma \sqrt{w} = w^{(1-\gamma )/2}"),
        ("√(L Σ_i s_i^(2/L))", r"\sqrt{L \sum _{i} s_{i}^{2/L}}"),
        ("A_k = U_kΣV_kᵀ", r"A_{k} = U_{k}\Sigma V_{k}^{\top }"),
        ("K⁻¹R", "K^{-1}R"),
        ("C − C_min", r"C - C_{\mathrm{min}}"),
        ("‖A* − A_0‖_F", r"\| A^{*} - A_{0}\| _{F}"),
        ("ȧ = L a^(2−2/L) (s − a)", r"\dot{a} = L a^{2-2/L} (s - a)"),
        ("{UXᵀ + YVᵀ}", r"\{UX^{\top } + YV^{\top }\}"),
        ("10⁹", "10^{9}"),
        ("D_ij", "D_{ij}"),
    ],
)
def test_plain_mathematics_becomes_tex(text, tex):
    assert to_tex(text) == tex


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("A network of depth L multiplies matrices, A = W_L ⋯ W_1, and learns.", ["L", "A = W_L ⋯ W_1"]),
        ("A layer stretches a unit vector by about α = σ√w (up to powers of w).", ["α = σ√w", "w"]),
        ("its weights are N(0, w^−γ). At γ < 1 it is lazy.", ["N(0, w^−γ)", "γ < 1"]),
        ("the cost of A; A is a matrix. A moves.", ["A", "A"]),
        ("for A_c = U S Vᵀ of rank r, UᵀG = 0 and GV = 0", ["A_c = U S Vᵀ", "r", "UᵀG = 0", "GV = 0"]),
        ("panels (a) and (b), e.g. the user's W-method, and/or 80 entries", []),
        ("a size of 0.35 s²/ρ, as in [J] and [LLL].", ["0.35 s²/ρ"]),
        ("(κ_L m) and −(S_lᵀ G + its transpose)", ["κ_L m", "S_lᵀ G"]),
        ("the file train-completion-10x10, key_with_words, 2026-11-23", []),
    ],
)
def test_mathematics_is_found_in_sentences_and_words_are_left_alone(sentence, found):
    told = pieces(sentence)
    assert [text for math, text in told if math] == found
    assert "".join(text for _, text in told) == sentence


def test_indented_formulas_are_displayed_and_commands_are_not():
    text = "so\n\n    ȧ = L a   and b = 2·c\n\nand\n\n    pip install α\n\n```\n\n    x² = 1\n\n```\n"
    shown = displayed(text)
    assert 'class="tex display" data-tex="\\dot{a} = L a \\qquad \\text{and } b = 2\\cdot c"' in shown
    assert "    pip install α\n" in shown and "    x² = 1\n" in shown


def test_terms_link_where_a_page_first_uses_them():
    glossary = tool["Glossary"](ROOT / "docs" / "glossary.md")
    glossary.begin(linked=True)
    assert glossary.split("Plateaus of a lazy plateau") == [
        (None, ""),
        ("plateau", "Plateaus"),
        (None, " of a "),
        ("lazy", "lazy"),
        (None, " plateau"),
    ]
    assert glossary.split("the plateau") == [(None, "the plateau")]
    glossary.begin(linked=False)
    assert glossary.split("the plateau") == [(None, "the plateau")]


def test_every_public_name_has_its_place_in_the_python_reference():
    page = (ROOT / "docs" / "reference-python.md").read_text()
    for name in dlnphase.__all__:
        value = getattr(dlnphase, name)
        assert name.startswith("__") or f"::: {value.__module__}.{value.__qualname__}\n" in page, name


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, built as strictly as ``make docs`` builds them."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr  # a dead link or anchor, or a page that is left out of the navigation
    return folder


def test_every_page_is_built_with_its_pictures(site):
    pages = list(site.glob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        for target in re.findall(r'<img[^>]* src="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_pages_load_nothing_from_outside(site):
    for page in site.glob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)|<link[^>]* href="?([^" >]+)', text)
        assert not [u for pair in loaded for u in pair if re.match(r"(https?:)?//", u)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text()), sheet.name


def test_pages_have_mathematics_search_dark_mode_and_linked_terms(site):
    theory = (site / "theory.html").read_text()
    assert theory.count('data-tex="') > 100 and 'class="tex display"' in theory
    assert "assets/katex/katex.min.js" in theory and (site / "assets" / "katex" / "katex.min.js").exists()
    assert 'data-md-color-scheme="slate"' in theory and (site / "search").is_dir()
    terms = set(re.findall(r'class="term" href="glossary.html#([^"]+)"', theory))
    assert len(terms) > 5 and all(f'id="{t}"' in (site / "glossary.html").read_text() for t in terms)
    assert "detect_saddles" in (site / "reference-python.html").read_text()
