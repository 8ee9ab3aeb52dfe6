"""A recorder for anybody's training loop: the layers of a linear network, at log-spaced steps, in one file.

    recorder = dlnphase.Recorder(model, "path.npz", optimizer=optimizer)
    for batch in data:
        ...
        optimizer.step()
        recorder.step()
    recorder.close()

The file is what ``dlnphase detect-saddles path.npz`` reads, and ``dlnphase.load`` opens. It is replaced as a whole,
never written in place, so that whatever kills the program leaves the last one that was whole.
"""

from __future__ import annotations

import math
import os
import time as clock
import warnings
import weakref
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import numpy as np
import torch

from dlnphase.detect.linear import linear_layers
from dlnphase.errors import DlnphaseError, InputError, RunError
from dlnphase.networks.products import product
from dlnphase.results.files import write_rows
from dlnphase.results.journal import remove_leftovers_of, write_atomic
from dlnphase.results.recording import load_recording

PER_DECADE = 20  # records to a factor of ten in steps: neighbours 12 % apart
SAVE_EVERY = 10.0  # seconds between two writes of the file: what a kill can cost
WRITING = 0.01  # share of the time that writing may take: large files are written less often
FARTHEST = 1e100  # ratio of the steps of two records: its square is a number still
MOST_BYTES = 2**30  # of records: more would take somebody's memory away from his training
LONGEST = 200  # characters of a path that a message shows


class Recorder:
    """Keep what a path is made of, while somebody else trains.

    Args:
        model: a network whose parameters are bias-free ``torch.nn.Linear`` layers, or matrices in a ``ParameterList``,
            and which computes their product: it is called once, on random vectors with random weights, to see that it
            does and in what order. A ``ModuleList`` or ``ParameterList`` is taken in its own order, and so is an
            explicit list of weight matrices, W_1 first: ``[model.first.weight, model.second.weight]``.
        path: the .npz to write; one that is there already is continued (``append=True``) or refused.
        optimizer: whose learning rate makes time of steps, group by group the first one's; schedules are followed. What
            makes its path another than that of gradient flow is kept in the file.
        lr: the learning rate, where there is no optimizer to ask.
        per_decade: records to a factor of ten in steps; 0 keeps every step.
        product: keep only A = W_L ⋯ W_1 instead of the layers.
        append: go on with the file that is there.
        at: with ``append``, the step that training goes on from; records of later steps are dropped. Without it the
            weights must be those of the last record.
        save_every: seconds between two writes; a file that takes long to write is written less often.
        max_bytes: that the records may take, in memory and in the file; when they would take more, every second one is
            dropped, and half as many are kept from then on.

    Raises:
        InputError: for a model with biases or nonlinear layers, no learning rate, a file that is there and not to be
            continued, or that another recorder is writing.
        RunError: when the file cannot be written.
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
        at: int | None = None,
        save_every: float = SAVE_EVERY,
        max_bytes: float = MOST_BYTES,
    ) -> None:
        if (optimizer is None) == (lr is None):
            raise InputError("Recorder: expected an optimizer or lr, one of the two, to make time of steps")
        if optimizer is not None and not hasattr(_innermost(optimizer), "param_groups"):
            raise InputError(f"Recorder: optimizer: found a {type(optimizer).__name__}, expected one of torch")
        if lr is not None and not _number(lr) > 0:
            raise InputError(f"Recorder: lr: found {lr}, expected a finite number above 0")
        if not _number(save_every) >= 0:
            raise InputError(f"Recorder: save_every: found {save_every}, expected seconds, 0 or more")
        if not _number(max_bytes) > 0:
            raise InputError(f"Recorder: max_bytes: found {max_bytes}, expected a number of bytes above 0")
        if not _whole(per_decade):
            raise InputError(f"Recorder: per_decade: found {per_decade}, expected an integer, 0 or more")
        if at is not None and not (append and _whole(at)):
            raise InputError(f"Recorder: at: found {at}, expected a step, 0 or more, beside append=True")
        self.path = _path(path)
        self._optimizer, self._lr = _innermost(optimizer), None if lr is None else float(lr)
        layers = linear_layers(model)
        self._log = _Log(self.path, layers, product=product, optimizer=self._optimizer)
        self._save_every, self._most = save_every, max_bytes
        self._stride, self._ratio = 1, 10 ** (1 / per_decade) if per_decade else 1.0
        self.steps, self.time, self._next = 0, 0.0, 0
        self._end = weakref.finalize(self, self._log.finish)  # when the program ends without close(), too
        try:
            if self.path.exists():
                if not append:
                    raise InputError(f"Recorder: {self.path} is there already; append=True goes on with it")
                self.steps, self.time = self._log.take_up(None if at is None else int(at), self._rate())
                self._plan()
            else:
                self._keep()
                self._log.save()
        except BaseException:
            self._log.release()
            raise

    def step(self) -> None:
        """Count one step of the optimizer, made just now; kept where it is due.

        Raises:
            InputError: after ``close()``, or for a learning rate that makes no time.
            RunError: when the disk refuses; the file that is there stays.
        """
        self._expect_open("step")
        self.steps += 1
        self.time += self._rate()
        if self.steps >= self._next:
            self._keep()
            log = self._log
            if clock.monotonic() - log.saved >= max(self._save_every, log.took / WRITING):
                log.save()

    def save(self) -> None:
        """Write the file now.

        Raises:
            InputError: after ``close()``, when the file may be another recorder's.
            RunError: when the disk refuses; the file that is there stays.
        """
        self._expect_open("save")
        self._log.save()

    def close(self) -> None:
        """Keep the last step, whether it was due or not, and write the file."""
        self._end.detach()
        self._log.close(self.steps, self.time)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _expect_open(self, call: str) -> None:
        if self._log.closed:
            raise InputError(f"Recorder: {call}() after close(), expected a recorder of {self.path} that is open")

    def _rate(self) -> float:
        rate = float(self._optimizer.param_groups[0]["lr"] if self._optimizer is not None else self._lr or 0.0)
        if not 0 <= rate < math.inf:
            raise InputError(f"Recorder: the optimizer's learning rate is {rate}, expected a finite number, 0 or more")
        return rate

    def _keep(self) -> None:
        self._log.record(self.steps, self.time)
        self._plan()

    def _plan(self) -> None:
        while self._log.thin(self._most):
            self._stride, self._ratio = 2 * self._stride, min(self._ratio, FARTHEST) ** 2
        self._next = max(self.steps + self._stride, math.ceil(self.steps * self._ratio))


class _Log:
    """The records, and the file they go to; it outlives its recorder by as long as it takes to write them."""

    def __init__(
        self, path: Path, layers: list[torch.Tensor], *, product: bool, optimizer: torch.optim.Optimizer | None
    ) -> None:
        self.path, self.layers, self.product, self.optimizer = path, layers, product, optimizer
        self.rows: list[list[np.ndarray]] = []
        self.t: list[float] = []
        self.step: list[int] = []
        self.told = "" if optimizer is None else type(optimizer).__name__
        self.caveats: list[str] = []
        self.saved, self.took = clock.monotonic(), 0.0
        self.unsaved = self.closed = self.thinned = False
        self.process = os.getpid()
        self.lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0, thread_local=False)
        self.acquire()
        remove_leftovers_of(path)  # whoever wrote them is dead: the lock is ours

    def acquire(self) -> None:
        """Take the file for this recorder alone, unless it has it; InputError where another one has."""
        path = self.path
        try:
            if not self.lock.is_locked:
                self.lock.acquire()
        except filelock.Timeout:
            raise InputError(f"Recorder: {path} is being written by another recorder; close() that one first") from None
        except OSError as error:
            why = error.strerror or error
            raise RunError(f"Recorder: {_short(path)}: cannot be written ({why})") from None

    def record(self, step: int, time: float) -> None:
        """Keep the layers as they are; nothing where no time has passed, as under a learning rate of 0."""
        if self.t and not time > self.t[-1]:
            return
        self.rows.append(self.present())
        self.t.append(time)
        self.step.append(step)
        self.unsaved = True

    def thin(self, most: float) -> bool:
        """Drop every second record, neither the first nor the last, where all take more than so many bytes."""
        if len(self.t) < 3 or len(self.t) * sum(w.nbytes for w in self.rows[0]) <= most:
            return False
        kept = [*range(0, len(self.t) - 1, 2), len(self.t) - 1]
        self.rows, self.t = [self.rows[k] for k in kept], [self.t[k] for k in kept]
        self.step = [self.step[k] for k in kept]
        self.unsaved = True
        if not self.thinned:
            hint = "" if self.product else "; product=True keeps the product alone"
            text = f"Recorder: {_short(self.path)}: the records take more than {most:.3g} bytes"
            warnings.warn(f"{text}: every second one is dropped{hint}, max_bytes=… keeps more", stacklevel=5)
        self.thinned = True
        return True

    def present(self) -> list[np.ndarray]:
        """The layers as they are, or their product, copied."""
        weights = [w.detach() for w in self.layers]
        if self.product:
            weights = [product(weights)]
        # NumPy copies a small array several times as fast as torch does.
        return [np.array(w.to("cpu", _kept(w.dtype)).numpy()) for w in weights]

    @property
    def names(self) -> list[str]:
        """The names of the arrays of weights."""
        return ["A"] if self.product else [f"W{k + 1}" for k in range(len(self.layers))]

    def save(self) -> None:
        """Write the file."""
        started = clock.monotonic()
        self.caveats = list(dict.fromkeys((*self.caveats, *_caveats(self.optimizer, self.layers))))
        arrays: dict[str, Any] = {"t": np.array(self.t), "step": np.array(self.step)}
        arrays |= dict(zip(self.names, zip(*self.rows, strict=True), strict=True))
        words = {"optimizer": self.told, "not_flow": "; ".join(self.caveats)}
        arrays |= {name: np.array(text) for name, text in words.items() if text}
        write_atomic(self.path, lambda stream: write_rows(stream, arrays))
        self.saved, self.unsaved = clock.monotonic(), False
        self.took = self.saved - started

    def close(self, step: int, time: float) -> None:
        """Keep the last step, write, and let others write."""
        if self.closed:
            return
        self.record(step, time)
        if self.unsaved:
            self.save()
        self.release()

    def finish(self) -> None:
        """Write what is not written yet; called when the recorder is gone, or the program ends."""
        if self.closed or os.getpid() != self.process:  # a copy of the process has no part in it
            return
        try:
            self.acquire()  # locks are let go when a program ends, maybe before this is called
            if self.unsaved:
                self.save()
        except DlnphaseError as error:
            warnings.warn(str(error), stacklevel=1)
        self.release()

    def release(self) -> None:
        """Nothing more is written; others may."""
        self.closed = True
        if self.lock.is_locked:
            Path(self.lock.lock_file).unlink(missing_ok=True)
            self.lock.release()

    def take_up(self, at: int | None, rate: float) -> tuple[int, float]:
        """Go on with the file that is there; (step, time) to count from."""
        old = load_recording(self.path, "Recorder")
        held = [old.A] if self.product else old.layers
        found = [] if held is None else [w.shape[1:] for w in held]
        wanted = [tuple(w.shape) for w in self.layers]
        if self.product:
            wanted = [(wanted[-1][0], wanted[0][1])]
        if held is None or found != wanted:
            raise InputError(f"Recorder: {self.path} holds layers of shapes {found}, expected {wanted}")
        step = int(old.step[-1]) if at is None else at
        present, same = self.present(), np.flatnonzero(old.step == step)
        if len(same) and not all(_equal(w[same[0]], now) for w, now in zip(held, present, strict=True)):
            which = "the last record" if at is None else "its record"
            raise InputError(
                f"Recorder: {self.path}: the weights are not those of {which}, step {step}; expected at=STEP, the step "
                "that training goes on from (records of later steps are dropped)"
            )
        kept = np.flatnonzero(old.step <= step)
        self.rows = [[w[k] for w in held] for k in kept]
        self.t, self.step = [float(old.t[k]) for k in kept], [int(old.step[k]) for k in kept]
        self.told, self.caveats = self.told or old.optimizer, [old.not_flow] if old.not_flow else []
        # Between two records the learning rate is taken as constant; after the last one as what it is now.
        time = float(np.interp(step, old.step, old.t)) + max(0, step - int(old.step[-1])) * rate
        self.unsaved = len(kept) < len(old.step)
        self.record(step, time)
        return step, time


def _number(value: Any) -> float:
    """A finite number of Python, NumPy or torch; NaN for anything else."""
    if isinstance(value, (str, bytes)):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _whole(value: Any) -> bool:
    """Whether it is an integer, 0 or more, of Python or NumPy."""
    return isinstance(value, Integral) and int(value) >= 0


def _path(path: str | Path) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"Recorder: path: found a {type(path).__name__}, expected the name of a .npz file")
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"Recorder: path: {_short(Path(path))}: {error}") from None
    if path.suffix.lower() != ".npz":
        raise InputError(f"Recorder: path: found {_short(path)}, expected a name that ends in .npz")
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise InputError(f"Recorder: path: {_short(path)}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def _innermost(optimizer: Any) -> Any:
    """The optimizer of torch inside those that wrap it."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _caveats(optimizer: torch.optim.Optimizer | None, layers: list[torch.Tensor]) -> list[str]:
    """Why the path of an optimizer is not that of gradient flow in the time lr × steps."""
    if optimizer is None:
        return []
    out = [] if type(optimizer) is torch.optim.SGD else [f"steps of {type(optimizer).__name__}"]
    groups = optimizer.param_groups
    for name in ("momentum", "weight_decay", "maximize"):
        values = sorted({float(group.get(name) or 0.0) for group in groups})
        if any(values):
            out.append(f"{name.replace('_', ' ')} {', '.join(f'{v:g}' for v in values)}")
    rates = sorted({float(group["lr"]) for group in groups})
    if len(rates) > 1:
        out.append(f"groups of parameters with learning rates {', '.join(f'{v:g}' for v in rates)}")
    trained = {id(w) for group in groups for w in group["params"]}
    missing = [f"W{k + 1}" for k, w in enumerate(layers) if id(w) not in trained]
    if missing:
        out.append(f"{', '.join(missing)} not among what the optimizer trains")
    return out


def _equal(kept: np.ndarray, now: np.ndarray) -> bool:
    """Whether weights are those of a record, up to the round-off of a product that is computed again."""
    room = np.finfo(now.dtype).eps * sum(now.shape) * float(np.abs(now).max(initial=0.0))
    return bool(np.abs(kept - now).max(initial=0.0) <= room)


def _kept(dtype: torch.dtype) -> torch.dtype:
    """NumPy has no short floats of every kind: those are kept in single precision, which holds them exactly."""
    return dtype if dtype == torch.float64 else torch.float32
