"""A recorder for anybody's training loop: the layers of a linear network, at log-spaced steps, in one file.

    recorder = dlnphase.Recorder(model, "path.npz", optimizer=optimizer)
    for batch in data:
        ...
        optimizer.step()
        recorder.step()
    recorder.close()

The file is what ``dlnphase detect-saddles path.npz`` reads. It is replaced as a whole, never written in place, so that
whatever kills the program leaves the last one that was whole.
"""

from __future__ import annotations

import math
import time as clock
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from dlnphase.errors import InputError
from dlnphase.results.files import npz_bytes, read_npz
from dlnphase.results.journal import write_atomic
from dlnphase.setup.states import in_order

PER_DECADE = 30  # records to a factor of ten in steps: neighbours 8 % apart
SAVE_EVERY = 10.0  # seconds between two writes of the file: what a kill can cost
PASSES = (torch.nn.Identity, torch.nn.Flatten, torch.nn.modules.loss._Loss)  # what changes nothing of the layers


class Recorder:
    """Keep what a path is made of, while somebody else trains.

    Args:
        model: a chain of bias-free ``torch.nn.Linear`` layers (a Sequential, a ModuleList, or a module that holds one),
            or the weight matrices themselves, W_1 first.
        path: the .npz to write; one that is there already is continued (``append=True``) or refused.
        optimizer: whose learning rate makes time of steps, group by group the first one's; schedules are followed.
        lr: the learning rate, where there is no optimizer to ask.
        per_decade: records to a factor of ten in steps; 0 keeps every step.
        product: keep only A = W_L ⋯ W_1 instead of the layers.
        append: go on with the file that is there.
        save_every: seconds between two writes.

    Raises:
        InputError: for a model with biases or nonlinear layers, no learning rate, or a file that is there and not to be
            continued.
    """

    def __init__(
        self,
        model: Any,
        path: str | Path,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        lr: float | None = None,
        per_decade: int = PER_DECADE,
        product: bool = False,
        append: bool = False,
        save_every: float = SAVE_EVERY,
    ) -> None:
        if (optimizer is None) == (lr is None):
            raise InputError("Recorder: expected an optimizer or lr, one of the two, to make time of steps")
        if lr is not None and not (isinstance(lr, (int, float)) and math.isfinite(lr) and lr > 0):
            raise InputError(f"Recorder: lr: found {lr}, expected a finite number above 0")
        if not isinstance(per_decade, int) or per_decade < 0:
            raise InputError(f"Recorder: per_decade: found {per_decade}, expected an integer, 0 or more")
        self.path = Path(path)
        self._layers = linear_layers(model)
        self._optimizer, self._lr = optimizer, lr
        self._ratio = 10 ** (1 / per_decade) if per_decade else 1.0
        self._product, self._save_every = product, save_every
        self._rows: list[list[np.ndarray]] = []
        self._t: list[float] = []
        self._step: list[int] = []
        self.steps, self.time, self._next = 0, 0.0, 0
        self._saved = clock.monotonic()
        self._unsaved = False
        if self.path.exists():
            if not append:
                raise InputError(f"Recorder: {self.path} is there already; append=True goes on with it")
            self._continue()
        else:
            self._record()
            self.save()

    def step(self) -> None:
        """Count one step of the optimizer, made just now; kept where it is due."""
        rate = self._optimizer.param_groups[0]["lr"] if self._optimizer is not None else self._lr
        self.steps += 1
        self.time += float(rate)  # type: ignore[arg-type]
        if self.steps >= self._next:
            self._record()
            if clock.monotonic() - self._saved >= self._save_every:
                self.save()

    def save(self) -> None:
        """Write the file now. RunError when the disk refuses; the file that is there stays."""
        arrays = {"t": np.array(self._t), "step": np.array(self._step)}
        stacks = [np.stack(layer) for layer in zip(*self._rows, strict=True)]
        names = ["A"] if self._product else [f"W{k + 1}" for k in range(len(stacks))]
        arrays |= dict(zip(names, stacks, strict=True))
        write_atomic(self.path, npz_bytes(arrays))
        self._saved, self._unsaved = clock.monotonic(), False

    def close(self) -> None:
        """Keep the last step, whether it was due or not, and write the file."""
        if self._step[-1] != self.steps:
            self._record()
        if self._unsaved:
            self.save()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _record(self) -> None:
        weights = [w.detach() for w in self._layers]
        if self._product:
            product = weights[0]
            for w in weights[1:]:
                product = w @ product
            weights = [product]
        # NumPy copies a small array several times as fast as torch does.
        self._rows.append([np.array(w.to("cpu", _kept(w.dtype)).numpy()) for w in weights])
        self._t.append(self.time)
        self._step.append(self.steps)
        self._next = max(self.steps + 1, math.ceil(self.steps * self._ratio))
        self._unsaved = True

    def _continue(self) -> None:
        """Take up the records of the file that is there, and go on counting where it ended."""
        arrays = read_npz(self.path, "Recorder")
        names = ["A"] if self._product else [f"W{k + 1}" for k in range(len(self._layers))]
        missing = [name for name in ("t", "step", *names) if name not in arrays]
        if missing or len(arrays["t"]) == 0:
            raise InputError(f"Recorder: {self.path} has no {', '.join(missing) or 'records'}: of another network?")
        lengths = {len(arrays[name]) for name in ("t", "step", *names)}
        shapes = [arrays[name].shape[1:] for name in names]
        wanted = [tuple(w.shape) for w in self._layers]
        if self._product:
            wanted = [(wanted[-1][0], wanted[0][1])]
        if lengths != {len(arrays["t"])} or shapes != wanted:
            raise InputError(f"Recorder: {self.path} holds layers of shapes {shapes}, expected {wanted}")
        self._rows = [[arrays[name][k] for name in names] for k in range(len(arrays["t"]))]
        self._t, self._step = [float(v) for v in arrays["t"]], [int(v) for v in arrays["step"]]
        self.steps, self.time = self._step[-1], self._t[-1]
        self._next = max(self.steps + 1, math.ceil(self.steps * self._ratio))


def linear_layers(model: Any) -> list[torch.Tensor]:
    """The weight matrices of a linear network, W_1 first; they are the model's own, not copies.

    Raises:
        InputError: naming the part that makes it another kind of network.
    """
    if isinstance(model, (list, tuple)) and all(isinstance(w, torch.Tensor) for w in model):
        named = [(f"W{k + 1}", w) for k, w in enumerate(model)]
    elif isinstance(model, torch.nn.Module):
        named = []
        for name, part in model.named_modules(remove_duplicate=False):
            if any(True for _ in part.children()) or isinstance(part, (*PASSES, torch.nn.ModuleList)):
                continue
            if not isinstance(part, torch.nn.Linear):
                raise InputError(f"Recorder: {name or 'the model'} is a {type(part).__name__}, expected Linear layers")
            if part.bias is not None:
                raise InputError(f"Recorder: {name or 'the model'} has a bias, expected Linear(…, bias=False)")
            named.append((name, part.weight))
        if not named:
            raise InputError(f"Recorder: found no linear layer in a {type(model).__name__}")
    else:
        raise InputError(f"Recorder: found a {type(model).__name__}, expected a torch module or a list of matrices")
    if any(w.ndim != 2 or not w.dtype.is_floating_point or w.is_meta for _, w in named):
        raise InputError("Recorder: expected real weight matrices n_l x n_(l-1)")
    for k, (name, w) in enumerate(named):
        twin = next((other for other, before in named[:k] if before is w), None)
        if twin is not None:
            raise InputError(f"Recorder: {name} and {twin} share one weight, expected layers of their own")
    # What stands between the layers is known here: they are counted one after the other.
    tensors = {f"layer {k + 1}": w for k, (_, w) in enumerate(named)}
    shapes = [(name, np.empty(tuple(w.shape), dtype=np.int8)) for name, w in tensors.items()]
    ordered = in_order(shapes, "Recorder")
    return [tensors[name] for name, _ in ordered]


def _kept(dtype: torch.dtype) -> torch.dtype:
    """NumPy has no short floats of every kind: those are kept in single precision, which holds them exactly."""
    return dtype if dtype == torch.float64 else torch.float32


def lightning_callback(path: str | Path, **options: Any) -> Any:
    """A callback that records a Lightning module: ``Trainer(callbacks=[dlnphase.lightning_callback("path.npz")])``.

    Lightning is needed only by whoever has a Trainer: where it is installed, the callback is one of its own kind.

    Args:
        path, options: as of :class:`Recorder`; the optimizer is the trainer's first.
    """
    return type("RecorderCallback", (_Callback, *_lightning_base()), {})(path, options)


def _lightning_base() -> tuple[type, ...]:
    for module in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return (__import__(module, fromlist=["Callback"]).Callback,)
        except ImportError:
            continue
    return ()


class _Callback:
    """What Lightning calls on the way."""

    def __init__(self, path: str | Path, options: dict[str, Any]) -> None:
        self.path, self.options = path, options
        self.recorder: Recorder | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begin with the weights as they are before the first step."""
        self.recorder = Recorder(module, self.path, optimizer=trainer.optimizers[0], **self.options)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the optimizer's steps since the last batch: none while gradients are accumulated."""
        assert self.recorder is not None
        while self.recorder.steps < trainer.global_step:
            self.recorder.step()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Keep the last step and write the file."""
        if self.recorder is not None:
            self.recorder.close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Keep what there is when training fails."""
        if self.recorder is not None:
            self.recorder.close()
