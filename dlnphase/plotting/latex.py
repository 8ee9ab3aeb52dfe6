"""Captions as LaTeX."""

from __future__ import annotations

# What LaTeX reads as something else, or its default fonts do not have, in words of captions.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\~{}",
    "^": r"\^{}",
    "$": r"\$",
    "γ": r"$\gamma$",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
    "η": r"$\eta$",
    "λ": r"$\lambda$",
    "β": r"$\beta$",
    "×": r"$\times$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "±": r"$\pm$",
    "‖": r"$\|$",
    "₀": "$_0$",
    "₁": "$_1$",
    "₂": "$_2$",
    "○": r"$\circ$",
    "□": r"$\square$",
    "△": r"$\triangle$",
    "\u00a0": "~",
}


def latex(words: str) -> str:
    """Plain words as LaTeX text."""
    return "".join(_LATEX.get(letter, letter) for letter in words)
