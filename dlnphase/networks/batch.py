"""Some members of a batch, out of whatever dataclass tells about all of them."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any, Self

import numpy as np
from torch import Tensor

from dlnphase.networks.chain import Network


class Batched:
    """Of a dataclass about a batch: the same of some members.

    Tensors and arrays have the batch in front, and so has each tensor of a list of them; any other list has one entry a
    member. Networks and what is ``Batched`` itself follow; everything else is of the batch as a whole.
    """

    __slots__ = ()

    def select(self, members: Any) -> Self:
        """Some members of the batch.

        Args:
            members: what indexes its fields: a slice for any, a boolean array (B,) for arrays, indices for tensors.
        """
        out = copy.copy(self)
        for field in fields(self):  # type: ignore[arg-type]  # every dataclass that is Batched
            object.__setattr__(out, field.name, _some(getattr(self, field.name), members))  # of a frozen one as well
        return out


def _some(value: Any, members: Any) -> Any:
    if isinstance(value, (Network, Batched)):
        return value.select(members)
    if isinstance(value, (Tensor, np.ndarray)):
        return value[members]
    if isinstance(value, list):
        tensors = any(isinstance(each, Tensor) for each in value)
        return [each[members] for each in value] if tensors else value[members]
    return value
