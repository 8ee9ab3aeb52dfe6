"""Saddles of one kind: a critical matrix, and the layers in which its dead directions die."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death
from dlnphase.distances.nearest import FEASIBLE, ROUGH, ROUGHLY_RESTORED, Nearest, nearest, restore
from dlnphase.distances.starts import align_frames, carried, overlay
from dlnphase.distances.ways import Deaths, Way
from dlnphase.networks.chain import Network

Groups = list[tuple[int, Tensor, Tensor]]  # (k, V, U) of a death, one V and U a member


class Kind:
    """Saddles of one kind for a batch of members: same shapes, same layers, each member its own critical matrix."""

    def __init__(self, deaths: Deaths, ways: Sequence[Way], members: Sequence[int]) -> None:
        self.network = network = deaths.network.select(list(members))
        self.matrices = [w.matrix for w in ways]
        self.death = deaths.of(ways, members)
        self.exact = ways[0].is_exact
        self.constraint = saddle_constraint(network, self.matrices, self.death.groups)

    def balanced(self) -> Network:
        """Balanced factors of what is kept, laid over the killed network outside its dead spaces."""
        return _balanced(self.death, self.matrices)

    def first_point(self) -> tuple[Tensor, Tensor]:
        """A point of the kind reached from the killed network, else from balanced factors; distances (B,), inf if
        none."""
        there, residual = restore(self.death.network, self.constraint, None, ROUGHLY_RESTORED)
        theta, distance = there.theta, _attained(self.network, there, residual)
        missed = torch.nonzero(~torch.isfinite(distance)).flatten()
        if len(missed):
            again, residual = restore(
                self.balanced().select(missed), self.constraint.select(missed), None, ROUGHLY_RESTORED
            )
            theta, distance = theta.clone(), distance.clone()
            theta[missed], distance[missed] = again.theta, _attained(self.network.select(missed), again, residual)
        return theta, distance

    def polish(self, start: Tensor, max_steps: int) -> Nearest:
        """Roughly the nearest point of the kind, from one start per member."""
        return nearest(self.network, self.network.with_theta(start), self.constraint, tol=ROUGH, max_steps=max_steps)

    def groups(self, row: int) -> Groups:
        """(k, V, U) of what is dead in one member."""
        return [(k, v[row], u[row]) for k, v, u in self.death.groups]


def saddle_constraint(network: Network, matrices: list[CriticalMatrix], groups: Groups) -> Constraint:
    """W_k ⋯ W_1 V = 0 and Uᵀ W_L ⋯ W_{k+1} = 0 for each group (k, V, U), and U_cᵀ A V_c as in the critical matrix."""
    batch, depth = network.batch, network.depth
    theta = network.theta
    terms = []
    for split, right, left in groups:
        zero = theta.new_zeros(batch, network.dims[split] * right.shape[2])
        terms.append(Term(tuple(range(split)), False, right, None, None, zero))
        zero = theta.new_zeros(batch, network.dims[split] * left.shape[2])
        terms.append(Term(tuple(range(depth - 1, split - 1, -1)), True, left, None, None, zero))
    size = matrices[0].left_kept.shape[1] * matrices[0].right_kept.shape[1]
    if size:
        left_kept, right_kept = (torch.stack([getattr(m, s) for m in matrices]) for s in ("left_kept", "right_kept"))
        goal = left_kept.mT @ torch.stack([m.matrix for m in matrices]) @ right_kept
        bases = [m.basis for m in matrices if m.basis is not None]  # all have one, or none has
        basis = torch.stack(bases) if bases else None
        flat = goal.flatten(1)
        target = flat if basis is None else torch.einsum("bdk,bd->bk", basis, flat)
        terms.append(Term(tuple(range(depth)), False, right_kept, left_kept.mT, basis, target))
    sizes = [t.target.shape[1] for t in terms]
    start = Constraint(terms, theta.new_ones(batch, len(terms))).at(network).value.split(sizes, 1)
    scale = torch.stack([v.norm(dim=1) + t.target.norm(dim=1) for v, t in zip(start, terms, strict=True)], 1)
    return Constraint(terms, scale.clamp_min(torch.finfo(theta.dtype).tiny))


def _attained(origin: Network, there: Network, residual: Tensor) -> Tensor:
    """‖θ − θ_0‖ of the members that are on the set, infinite for others, shape (B,)."""
    return torch.where(residual <= FEASIBLE, (there.theta - origin.theta).norm(dim=1), torch.inf)


def _balanced(death: Death, matrices: list[CriticalMatrix]) -> Network:
    """Balanced factors of what is kept, laid over the killed network outside its dead spaces."""
    matrix = torch.stack([m.matrix for m in matrices])
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    # What is kept may have more modes than a narrow layer lets through: then a start with the leading ones.
    rank = min(max(1, int((s > 1e-12 * s[:, :1]).sum(1).amax())), *death.network.dims)
    layers = []
    for index, w in enumerate(death.network.weights):
        below, above = death.spaces[index], death.spaces[index + 1]
        w = w if below is None else w - (w @ below) @ below.mT
        layers.append(w if above is None else w - above @ (above.mT @ w))
    root = s[:, :rank] ** (1 / death.network.depth)
    network = Network.from_weights(layers)
    begin = carried(network, vh[:, :rank].mT, u[:, :, :rank])
    frames, _ = align_frames(network, [frame.unsqueeze(1) for frame in begin], root)
    return overlay(death.network, [frame[:, 0] for frame in frames], root)
