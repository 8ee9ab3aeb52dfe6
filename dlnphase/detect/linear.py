"""The layers of somebody's linear network, in the order in which it uses them.

That a module is the product of the layers found in it is not taken for granted: it is called once, on a few random
vectors and with random weights in place of its own, and what it gives is compared with their product.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dlnphase.errors import InputError
from dlnphase.setup.states import in_order

PASSES = (torch.nn.Identity, torch.nn.Flatten, torch.nn.modules.loss._Loss)  # what changes nothing of the layers
WRAPPERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)  # which compute what their module does
LISTS = (torch.nn.ModuleList, torch.nn.ParameterList)  # hold layers, and cannot be called
PROBES = 4  # random vectors on which a module is compared with the product of its layers
BY_HAND = "give its weight matrices themselves, W1 first: [layer.weight for layer in …]"

Named = list[tuple[str, torch.Tensor]]


def linear_layers(model: Any) -> list[torch.Tensor]:
    """The weight matrices of a linear network, W_1 first; they are the model's own, not copies.

    Args:
        model: a module whose parameters are bias-free Linear layers or matrices in a ParameterList, and which computes
            their product; or a list of matrices, W_1 first.

    Raises:
        InputError: naming the part that makes it another kind of network.
    """
    if isinstance(model, (list, tuple)) and all(isinstance(w, torch.Tensor) for w in model):
        named = [(f"W{k + 1}", w) for k, w in enumerate(model)]
        return [w for _, w in _chained(_checked(named))]
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"Recorder: found a {type(model).__name__}, expected a torch module or a list of matrices")
    while isinstance(model, WRAPPERS) or hasattr(model, "_orig_mod"):
        model = next(model.children())
    return [w for _, w in _as_used(model, _checked(_found(model)))]


def _found(model: torch.nn.Module) -> Named:
    """Every weight matrix with its name; what is anything else is refused by name."""
    named: Named = []
    for name, part in model.named_modules(remove_duplicate=False):
        shown = name or "the model"
        if isinstance(part, torch.nn.Linear):
            if part.bias is not None:
                raise InputError(f"Recorder: {shown} has a bias, expected Linear(…, bias=False)")
            named.append((name, part.weight))
        elif isinstance(part, torch.nn.ParameterList):
            named += [(f"{name}.{k}".lstrip("."), w) for k, w in enumerate(part)]
        elif not isinstance(part, (*PASSES, torch.nn.ModuleList)) and not any(True for _ in part.children()):
            empty = part is model and not any(True for _ in part.parameters())
            if empty or type(part).__module__.startswith("torch.nn."):
                raise InputError(f"Recorder: {shown} is a {type(part).__name__}, expected Linear layers")
    known = {id(w) for _, w in named}
    for name, parameter in model.named_parameters():
        if id(parameter) not in known:
            raise InputError(
                f"Recorder: {name} of shape {tuple(parameter.shape)} is a parameter beside the Linear layers, expected "
                f"them alone; if it is one of the matrices of a product, {BY_HAND}"
            )
        if not parameter.requires_grad:
            raise InputError(f"Recorder: {name} is frozen (requires_grad=False), expected layers that are all trained")
    if not named:
        raise InputError(f"Recorder: found no linear layer in a {type(model).__name__}")
    return named


def _checked(named: Named) -> Named:
    """The same; InputError for anything but real matrices, each one only once."""
    for k, (name, w) in enumerate(named):
        if isinstance(w, torch.nn.parameter.UninitializedParameter):
            raise InputError(f"Recorder: {name} has no shape yet, expected a model that was called once")
        if not isinstance(w, torch.Tensor) or w.ndim != 2 or not w.dtype.is_floating_point or w.is_meta or 0 in w.shape:
            raise InputError(
                f"Recorder: {name} has shape {tuple(w.shape)} and type {w.dtype}, expected a real matrix n_l x n_(l-1)"
            )
        twin = next((other for other, before in named[:k] if before is w), None)
        if twin is not None:
            raise InputError(f"Recorder: {name} and {twin} share one weight, expected layers of their own")
    return named


def _chained(named: Named) -> Named:
    """In the order in which they were given, or its reverse, so that each takes what the one before gives."""
    # What stands between the layers is known here: they are counted one after the other.
    places = {f"layer {k + 1}": pair for k, pair in enumerate(named)}
    ordered = in_order([(key, np.empty(tuple(w.shape), dtype=np.int8)) for key, (_, w) in places.items()], "Recorder")
    return [places[name] for name, _ in ordered]


# ---- what the module computes ------------------------------------------------------------------------------


def _as_used(model: torch.nn.Module, named: Named) -> Named:
    """In the order in which the module multiplies them; a list's is its own.

    Raises:
        InputError: when it cannot be called on vectors, or computes anything but the product.
    """
    if isinstance(model, LISTS) or len(named) < 2:
        return _chained(named)
    probe = _Probe(model, named)
    if not probe.found:
        inner = [part for part in model.children() if any(True for _ in part.parameters())]
        if isinstance(probe.error, NotImplementedError) and len(inner) == 1:  # it holds a network, and is none
            return _as_used(inner[0], named)
        _chained(named)  # says what does not fit together, where that is why
        raise InputError(
            f"Recorder: {type(model).__name__} cannot be called on vectors to see what it multiplies "
            f"({_first_line(probe.error)}); {BY_HAND}"
        )
    orders = [named, named[::-1]]
    if sorted(probe.called) == list(range(len(named))):
        orders.insert(0, [named[k] for k in probe.called])
    for order in orders:
        if probe.agrees(order):
            return order
    names = ", ".join(name for name, _ in named[:6]) + (", …" if len(named) > 6 else "")
    raise InputError(
        f"Recorder: {type(model).__name__} does not compute the product of its {len(named)} layers ({names}); "
        f"if it is one all the same, {BY_HAND}"
    )


class _Probe:
    """What a module gives on a few random vectors, with random matrices in place of its own.

    Nothing of the module, of the streams of random numbers, or of what hooks count is changed by it.

    Attributes:
        found: (inputs, outputs), vectors in rows, of every way in which it could be called.
        error: why it could not, where it could in none.
        called: the places of the Linear layers in the order in which they were called.
    """

    def __init__(self, model: torch.nn.Module, named: Named) -> None:
        first = named[0][1]
        # Short floats would hide a difference in their round-off.
        self._dtype = torch.promote_types(first.dtype, torch.float32)
        self._device, self._stream = first.device, torch.Generator().manual_seed(0)
        self._weights = {id(w): self._drawn(*w.shape) / w.shape[1] ** 0.5 for _, w in named}
        self.called: list[int] = []
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.error: Exception | None = None
        for size in dict.fromkeys((first.shape[1], named[-1][1].shape[1])):
            inputs, eye = self._drawn(PROBES, size), torch.eye(size, dtype=self._dtype, device=self._device)
            # Vectors in rows as Linear takes them, matrices that take no input, vectors in columns.
            for arguments, x, turned in (((inputs,), inputs, False), ((), eye, True), ((inputs.T,), inputs, True)):
                outputs = self._outputs(model, named, arguments)
                if outputs is not None:
                    self.found.append((x, outputs.T if turned else outputs))
                if self.found and size != PROBES:  # else rows and columns are told apart by the outputs alone
                    return

    def _drawn(self, rows: int, columns: int) -> torch.Tensor:
        drawn = torch.randn(rows, columns, generator=self._stream, dtype=self._dtype, device="cpu")
        return drawn.to(self._device)

    def _outputs(
        self, model: torch.nn.Module, named: Named, arguments: tuple[torch.Tensor, ...]
    ) -> torch.Tensor | None:
        """What the module gives; None, and ``error``, where it gives no matrix."""
        places = {id(w): k for k, (_, w) in enumerate(named)}
        layers = {id(part): places[id(part.weight)] for part in model.modules() if isinstance(part, torch.nn.Linear)}
        replaced = {name: self._weights[id(w)] for name, w in model.named_parameters()}
        probe = copy.copy(model)  # what its forward sets on itself is set on the copy
        called: list[int] = []
        devices = [self._device] if self._device.type == "cuda" else []
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")  # of calls that only look
                for context in (torch.no_grad(), torch.autocast(self._device.type, enabled=False)):
                    stack.enter_context(context)
                stack.enter_context(torch.random.fork_rng(devices))
                stack.enter_context(_without_hooks(probe, layers, called))
                outputs = torch.func.functional_call(probe, replaced, arguments)
            if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2:
                raise TypeError(f"it gives a {type(outputs).__name__}, expected a batch of vectors")
        except Exception as error:  # whatever somebody's forward raises
            self.error = self.error or error
            return None
        self.called = self.called or called
        return outputs

    def agrees(self, order: Named) -> bool:
        """Whether what it gives is the product of these layers.

        The same map leaves a few units of round-off, another one a difference as large as the outputs: the root of
        the round-off lies far from both.
        """
        with torch.autocast(self._device.type, enabled=False):
            return any(self._same(order, x, outputs) for x, outputs in self.found)

    def _same(self, order: Named, x: torch.Tensor, outputs: torch.Tensor) -> bool:
        for _, layer in order:
            if layer.shape[1] != x.shape[1]:
                return False
            x = x @ self._weights[id(layer)].T
        if x.shape != outputs.shape:
            return False
        limit = torch.finfo(self._dtype).eps ** 0.5
        return bool(torch.linalg.vector_norm(outputs - x) <= limit * torch.linalg.vector_norm(x))


@contextlib.contextmanager
def _without_hooks(probe: torch.nn.Module, layers: dict[int, int], called: list[int]) -> Iterator[None]:
    """The module without its hooks, but with ours, which note the layers as they are called."""
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    kept: list[tuple[torch.nn.Module, dict[str, Any]]] = []
    for part in probe.modules():
        kept.append((part, {name: part.__dict__[name] for name in hooks}))

    def note(part: torch.nn.Module, inputs: Any) -> None:
        called.append(layers[id(part)])

    try:
        for part, held in kept:
            part.__dict__.update({name: OrderedDict() for name in held})
            if id(part) in layers:
                part.register_forward_pre_hook(note)
        yield
    finally:
        for part, held in kept:
            part.__dict__.update(held)


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:100]}" if text else type(error).__name__
