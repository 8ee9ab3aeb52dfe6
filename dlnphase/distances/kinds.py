"""Saddles of one kind: a critical matrix, and the layers in which its dead directions die."""

from __future__ import annotations

import torch
from torch import Tensor

from dlnphase.distances.chains import Constraint, Term
from dlnphase.distances.critical import CriticalMatrix
from dlnphase.distances.deaths import Death
from dlnphase.distances.nearest import FEASIBLE, ROUGHLY_RESTORED, restore
from dlnphase.distances.starts import align_frames, carried, factors, overlay
from dlnphase.networks.chain import Network


def first_point(
    network: Network, matrices: list[CriticalMatrix], death: Death, constraint: Constraint
) -> tuple[Tensor, Tensor]:
    """A point of the kind reached from the killed network, else from balanced factors; distances (B,), inf if none."""
    there, residual = restore(death.network, constraint, None, ROUGHLY_RESTORED)
    theta, distance = there.theta, _attained(network, there, residual)
    missed = torch.nonzero(~torch.isfinite(distance)).flatten()
    if len(missed):
        start = _balanced(death, matrices).select(missed)
        again, residual = restore(start, constraint.select(missed), None, ROUGHLY_RESTORED)
        theta, distance = theta.clone(), distance.clone()
        theta[missed], distance[missed] = again.theta, _attained(network.select(missed), again, residual)
    return theta, distance


def saddle_constraint(network: Network, matrices: list[CriticalMatrix], death: Death) -> Constraint:
    """W_k ⋯ W_1 V = 0 and Uᵀ W_L ⋯ W_{k+1} = 0 for each group of a death, and U_cᵀ A V_c as in the critical matrix."""
    batch, depth = network.batch, network.depth
    theta = network.theta
    terms = []
    for split, right, left in zip(death.splits, death.right, death.left, strict=True):
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
    layers = []
    for w, below, above in zip(death.network.weights, death.spaces, death.spaces[1:], strict=False):
        w = w - (w @ below) @ below.mT
        layers.append(w - above @ (above.mT @ w))
    alive = Network.from_weights(layers)
    u, root, v = factors(alive, torch.stack([m.matrix for m in matrices]))
    frames, _ = align_frames(alive, [frame.unsqueeze(1) for frame in carried(alive, v, u)], root)
    return overlay(death.network, [frame[:, 0] for frame in frames], root)
