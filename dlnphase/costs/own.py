"""A cost of one's own: what it does not say is derived from what it does.

It has to say its ``shape`` and its ``value(a)`` (or ``excess(a)``, with ``minimum``) for batches (B, d_out, d_in). A
gradient or a Hessian product that it lacks is taken by automatic differentiation, a minimum is looked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlnphase.backend import Backend
from dlnphase.costs.interface import ConvexCost
from dlnphase.costs.minimise import Found, minimise
from dlnphase.errors import InputError


class OwnCost(ConvexCost):
    """A user's object as a cost that answers everything.

    Args:
        given: ``shape`` and ``value`` or ``excess``; any other method or attribute of
            :class:`dlnphase.costs.interface.ConvexCost` that it has is used.
        found: what is known of its minimum; None: what it says, or else what is found.

    Raises:
        InputError: for an object that lacks what cannot be derived.
    """

    kind = "own"

    def __init__(self, given: Any, found: Found | None = None) -> None:
        missing = [name for name in ("shape",) if not hasattr(given, name)]
        if not any(callable(getattr(given, name, None)) for name in ("value", "excess")):
            missing.append("value() or excess()")
        if missing:
            raise InputError(f"cost: {' and '.join(missing)} is missing, expected what dlnphase.costs.own tells")
        self.given, self.shape = given, tuple(given.shape)
        self.name = str(getattr(given, "name", type(given).__name__))
        self.like = torch.zeros((), dtype=torch.float64)
        self.resolution = float(getattr(given, "resolution", torch.finfo(torch.float64).eps))
        self.minimum, self.minimizer, self.attained = 0.0, None, False
        if found is None and hasattr(given, "minimum"):
            found = Found(
                float(given.minimum), getattr(given, "minimizer", None), bool(getattr(given, "attained", True))
            )
        self.found = found if found is not None else minimise(self)
        self.minimum, self.minimizer, self.attained = self.found.value, self.found.minimizer, self.found.attained

    def __repr__(self) -> str:
        return f"OwnCost({self.name}, {self.shape[0]}×{self.shape[1]}, minimum={self.minimum:.6g})"

    def to(self, backend: Backend) -> OwnCost:
        """The same elsewhere, by the method ``to`` of the user's object; InputError where it needs one and has none."""
        moved = self.given
        if callable(getattr(self.given, "to", None)):
            moved = self.given.to(backend)
        elif (backend.device.type, backend.dtype) != ("cpu", torch.float64):
            raise InputError(f"cost: {self.name} has no method to(backend), expected --device cpu and --dtype float64")
        out = OwnCost(moved, self.found.to(backend))
        out.like = self.like.to(backend.device, backend.dtype)
        return out

    @property
    def unique(self) -> bool:
        """As the user's object says; else False, which claims nothing."""
        return bool(getattr(self.given, "unique", False))

    def value(self, a: Tensor) -> Tensor:
        """C(A), shape (B,)."""
        own = getattr(self.given, "value", None)
        return own(a) if own is not None else self.given.excess(a) + self.minimum

    def excess(self, a: Tensor) -> Tensor:
        """C(A) − inf C, shape (B,)."""
        own = getattr(self.given, "excess", None)
        return own(a) if own is not None else self.value(a) - self.minimum

    def gradient(self, a: Tensor) -> Tensor:
        """∇C(A), the user's or that of ``value``."""
        own = getattr(self.given, "gradient", None)
        if own is not None:
            return own(a)
        with torch.enable_grad():
            at = a.detach().requires_grad_()
            (g,) = torch.autograd.grad(self._differentiable(at).sum(), at)
        return g

    def apply_curvature(self, v: Tensor, a: Tensor) -> Tensor:
        """Hessian of C at A applied to V, the user's or the derivative of the gradient along V."""
        own = getattr(self.given, "apply_curvature", None)
        if own is not None:
            return own(v, a)
        with torch.enable_grad():
            at = a.detach().clone().requires_grad_()
            (g,) = torch.autograd.grad(self._differentiable(at).sum(), at, create_graph=True)
            if not g.requires_grad:  # linear
                return torch.zeros_like(v)
            (image,) = torch.autograd.grad((g * v).sum(), at)
        return image

    def _differentiable(self, at: Tensor) -> Tensor:
        """C at a matrix on an autograd graph, still on it."""
        try:
            value = self.value(at)
            why = "" if value.requires_grad else "its result does not depend on its argument"
        except RuntimeError as error:  # as torch says of operations outside a graph
            why = str(error)
        if why:
            raise InputError(
                f"cost: value() cannot be differentiated automatically ({why}), expected torch operations, or "
                "gradient() and apply_curvature()"
            )
        return value

    def curvature(self, a: Tensor) -> Tensor:
        """Hessian on row-major entries, the user's or from products."""
        own = getattr(self.given, "curvature", None)
        return own(a) if own is not None else super().curvature(a)

    def minimum_at_rank(self, rank: int) -> float | None:
        """What the user's object knows, else the minimum from the least full rank on."""
        own = getattr(self.given, "minimum_at_rank", None)
        return own(rank) if own is not None else super().minimum_at_rank(rank)

    def accuracy(self, a: Tensor) -> Tensor | None:
        """What the user's object says, or None."""
        own = getattr(self.given, "accuracy", None)
        return own(a) if own is not None else None


def complete(cost: Any) -> ConvexCost:
    """The cost itself if it answers everything, else :class:`OwnCost` of it."""
    return cost if isinstance(cost, ConvexCost) else OwnCost(cost)


def load_cost(words: str) -> ConvexCost:
    """The cost called MODULE:NAME: an object, or something that makes one when it is called without arguments.

    MODULE is imported as Python would from the directory the command runs in.

    Raises:
        InputError: when there is no such module or name, or what it gives is no cost.
    """
    module, _, name = words.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"cost: cannot import {module} ({type(error).__name__}: {error}), expected MODULE:NAME"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"cost: {module} has no {name}, expected MODULE:NAME of a cost")
        found = getattr(found, part)
    return complete(_made(found, words))


def _made(found: Any, words: str) -> Any:
    """A class or a function is called; what it raises is told in one line."""
    methods: tuple[Callable[..., Any] | None, ...] = tuple(getattr(found, name, None) for name in ("value", "excess"))
    if not isinstance(found, type) and any(callable(m) for m in methods):
        return found
    if not callable(found):
        raise InputError(f"cost: {words} is a {type(found).__name__}, expected a cost or what makes one")
    try:
        return found()
    except Exception as error:
        raise InputError(f"cost: {words}() raises {type(error).__name__} ({error}), expected a cost") from None
