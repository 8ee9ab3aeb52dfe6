"""What a cost sees of A: entries, or answers to inputs. A linear map, its transpose, and what it does not see.

Both map matrices (B, d_out, d_in) to predictions Z that losses are told of, and back. The data stands here alone; a
loss knows nothing but Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlnphase.backend import Backend, Movable
from dlnphase.costs.round_off import indistinct

CHUNK = 1 << 23  # numbers of Z that are worked on at once


class Seen(Protocol):
    """A linear map A → Z of entries, samples or measurements: as much of it as a sum over them needs."""

    @property
    def count(self) -> int:
        """How many entries, samples or measurements there are."""
        ...

    @property
    def per_matrix(self) -> int:
        """Numbers of Z for one matrix."""
        ...

    @property
    def steepness(self) -> float:
        """How much steeper than all of them one alone may be, weighed as much as all."""
        ...

    def predict(self, a: Tensor) -> Tensor:
        """Z, shape (B, …)."""
        ...

    def pull_back(self, z: Tensor) -> Tensor:
        """The transpose of :meth:`predict`, times the weight of each in the cost; shape (B, d_out, d_in)."""
        ...

    def spread(self, each: Tensor) -> Tensor:
        """One number for each of them, shape (B, count), as what Z is multiplied with."""
        ...

    def squares(self, z: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Σ_i ⟨left·G_i·right, G_i⟩ of the G_i that :meth:`pull_back` gives of each alone, shape (B,)."""
        ...


class Sampling(Seen, Protocol):
    """A linear map A → Z that a cost can be made of."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        ...

    @property
    def weight(self) -> float:
        """That of each prediction in the cost."""
        ...

    def unseen(self, v: Tensor) -> Tensor:
        """The part of V that :meth:`predict` maps to 0."""
        ...

    def to(self, backend: Backend) -> Sampling:
        """The same on another device or in another dtype."""
        ...

    @property
    def like(self) -> Tensor:
        """A tensor of the same device and dtype."""
        ...

    @property
    def complete(self) -> bool:
        """Whether nothing is unseen."""
        ...

    @property
    def metric(self) -> Tensor | None:
        """Σ with ‖Z‖² = weight⁻¹·tr(A Σ Aᵀ), where inputs differ in size; None where entries are seen as they are."""
        ...


@dataclass(frozen=True)
class Entries(Movable):
    """Z = the observed entries of A, held as a matrix with zeros elsewhere; each counts 1.

    Attributes:
        mask: 1 on Ω, else 0; shape (d_out, d_in).
    """

    mask: Tensor
    weight: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return int(self.mask.shape[0]), int(self.mask.shape[1])

    def predict(self, a: Tensor) -> Tensor:
        """M ∘ A."""
        return self.mask * a

    def pull_back(self, z: Tensor) -> Tensor:
        """M ∘ Z."""
        return self.mask * z

    def unseen(self, v: Tensor) -> Tensor:
        """The entries outside Ω."""
        return (1 - self.mask) * v

    @property
    def like(self) -> Tensor:
        """The mask."""
        return self.mask

    @property
    def complete(self) -> bool:
        """Whether every entry is observed."""
        return bool(self.mask.all())

    @property
    def per_matrix(self) -> int:
        """D."""
        return self.mask.numel()

    @property
    def count(self) -> int:
        """|Ω|."""
        return int(self.mask.count_nonzero())

    @property
    def steepness(self) -> float:
        """|Ω|: no two entries are steep along one matrix."""
        return float(self.count)

    def spread(self, each: Tensor) -> Tensor:
        """At the entries of Ω, row by row; 0 elsewhere."""
        out = each.new_zeros((len(each), self.mask.numel()))
        out[:, self.mask.flatten().nonzero().flatten()] = each
        return out.view(-1, *self.shape)

    def squares(self, z: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """G = z_ij e_i e_jᵀ of each entry: Σ z_ij² left_ii right_jj."""
        diagonals = left.diagonal(dim1=-2, dim2=-1).unsqueeze(-1) * right.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
        return ((self.mask * z).square() * diagonals).sum((-2, -1))

    @property
    def metric(self) -> Tensor | None:
        """Entries are seen as they are."""
        return None


class Samples:
    """Z = X Aᵀ, the answers to N inputs, shape (B, N, d_out); each sample counts 1/N.

    Args:
        x: inputs, shape (N, d_in).
        outputs: d_out.
        resolution: relative precision of x.
    """

    def __init__(self, x: Tensor, outputs: int, resolution: float) -> None:
        self.x, self.resolution = x, resolution
        self.shape = (outputs, int(x.shape[1]))
        self.weight = 1.0 / len(x)
        values, vectors = torch.linalg.eigh(x.T @ x * self.weight)
        self._metric = x.T @ x * self.weight
        self._blind = vectors[:, values <= indistinct(resolution) * values[-1]]

    def predict(self, a: Tensor) -> Tensor:
        """X Aᵀ: one product for the whole batch."""
        batch, outputs, inputs = a.shape
        flat = self.x @ a.reshape(batch * outputs, inputs).T
        return flat.view(-1, batch, outputs).transpose(0, 1)

    def pull_back(self, z: Tensor) -> Tensor:
        """Zᵀ X / N."""
        batch, count, outputs = z.shape
        flat = z.permute(0, 2, 1).reshape(batch * outputs, count)
        return (flat @ self.x).view(batch, outputs, -1) * self.weight

    def unseen(self, v: Tensor) -> Tensor:
        """V on the inputs that no sample has."""
        return (v @ self._blind) @ self._blind.T

    def to(self, backend: Backend) -> Samples:
        """The same on another device or in another dtype."""
        return Samples(self.x.to(backend.device, backend.dtype), self.shape[0], self.resolution)

    @property
    def like(self) -> Tensor:
        """The inputs."""
        return self.x

    @property
    def complete(self) -> bool:
        """Whether the inputs span their space."""
        return not self._blind.shape[1]

    @property
    def per_matrix(self) -> int:
        """N·d_out."""
        return int(self.x.shape[0]) * self.shape[0]

    @property
    def count(self) -> int:
        """N."""
        return int(self.x.shape[0])

    @property
    def steepness(self) -> float:
        """max ‖x_n‖² over the largest eigenvalue of Σ."""
        return float(self.x.square().sum(1).max() / torch.linalg.eigvalsh(self._metric)[-1])

    def spread(self, each: Tensor) -> Tensor:
        """The same for all outputs of a sample."""
        return each.unsqueeze(-1)

    def squares(self, z: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """G = z_n x_nᵀ/N of each sample: Σ_n (z_nᵀ left z_n)(x_nᵀ right x_n)/N²."""
        above, below = ((z @ left) * z).sum(-1), ((self.x @ right) * self.x).sum(-1)
        return (above * below).sum(-1) * self.weight**2

    @property
    def metric(self) -> Tensor | None:
        """Σ = XᵀX/N."""
        return self._metric
