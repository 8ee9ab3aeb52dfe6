"""The recorder as a callback of Lightning, which need not be installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlnphase.detect.recorder import Recorder
from dlnphase.errors import InputError


def lightning_callback(path: str | Path, *, layers: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """A callback that records a Lightning module: ``Trainer(callbacks=[dlnphase.lightning_callback("path.npz")])``.

    Lightning is needed only by whoever has a Trainer: where it is installed, the callback is one of its own kind. With
    ``append=True`` a fit that resumes from a checkpoint goes on with the file from the step of that checkpoint. Of
    several processes the first one records.

    Args:
        path, options: as of :class:`Recorder`; the optimizer is the trainer's.
        layers: what to record of the module, such as ``lambda module: module.network``; the module itself if left out.
    """
    return type("RecorderCallback", (_Callback, *_lightning_base()), {})(path, layers, options)


def _lightning_base() -> tuple[type, ...]:
    for module in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return (__import__(module, fromlist=["Callback"]).Callback,)
        except ImportError:
            continue
    return ()


class _Callback:
    """What Lightning calls on the way."""

    def __init__(self, path: str | Path, layers: Callable[[Any], Any] | None, options: dict[str, Any]) -> None:
        self.path, self.layers, self.options = path, layers, options
        self.recorder: Recorder | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Begin with the weights as they are before the first step."""
        if not getattr(trainer, "is_global_zero", True):
            return
        if len(trainer.optimizers) != 1:
            raise InputError(f"Recorder: the trainer has {len(trainer.optimizers)} optimizers, expected one")
        options = dict(self.options)
        if options.get("append") and os.path.exists(self.path):
            options["at"] = int(trainer.global_step)
        model = module if self.layers is None else self.layers(module)
        self.recorder = Recorder(model, self.path, optimizer=trainer.optimizers[0], **options)
        self._behind = int(trainer.global_step) - self.recorder.steps

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the optimizer's steps since the last batch: none while gradients are accumulated."""
        while self.recorder is not None and self.recorder.steps + self._behind < trainer.global_step:
            self.recorder.step()

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Keep the last step and write the file."""
        if self.recorder is not None:
            self.recorder.close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Keep what there is when training fails."""
        if self.recorder is not None:
            self.recorder.close()
