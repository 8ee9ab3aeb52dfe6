"""HTML from Python, everything escaped: text can only become text."""

from __future__ import annotations

import html
import json
from typing import Any

VOID = {"meta", "img", "input", "br"}


class Markup(str):
    """Text that is HTML already; every other text is escaped."""


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """``<name attributes>children</name>``.

    Args:
        children: text, markup, or lists of them; None is left out.
        attributes: ``class_`` is ``class``, an underscore within a name a hyphen; True is an attribute without a
            value, None and False are left out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Any) -> Markup:
    """Text and markup one after the other."""
    if isinstance(children, Markup):
        return children
    if children is None:
        return Markup("")
    if isinstance(children, (list, tuple)):
        return Markup("".join(joined(child) for child in children))
    return Markup(html.escape(str(children), quote=False))


def script_data(value: Any, **attributes: Any) -> Markup:
    """A script element that holds data: JSON in which nothing can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return element("script", Markup(text), type="application/json", **attributes)
