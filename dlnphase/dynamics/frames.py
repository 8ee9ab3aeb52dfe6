"""Rotated frames in which small components of a network are stored as small numbers.

Rotating every space, W_l → O_l W_l O_{l-1}ᵀ, leaves the flow unchanged if the cost is rotated along.
In floating point it matters: once a mode is learned, products of layers carry round-off of *its* size,
while an unlearned mode lives on terms of size α^(L−1). In a frame whose axes are the singular directions
of each space, graded from large to small, products are accurate entry by entry and the noise is gone
(docs/theory.md, section 8).

The rotations are built from vectors x close to a unit vector e_i, by a formula whose small entries are
accurate relatively, so that re-aligning an aligned frame does not spoil the grading it protects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from dlnphase.costs.quadratic import Cost
from dlnphase.dynamics.framed_cost import FramedCost, turn_rows
from dlnphase.dynamics.sizes import direction_weights, space_weights
from dlnphase.dynamics.state import State
from dlnphase.dynamics.step_control import excess_out_of_reach
from dlnphase.networks.batch import Batched
from dlnphase.networks.chain import Network

EMERGENCE = 30.0  # some directions lead their space when the least λ of them exceeds this multiple of the others' mean
LEARNED = 1e-2  # weight, relative to the largest, from which a leading direction counts as learned
SEPARATED = 0.1  # weight, relative to a leading direction's, below which a direction counts as smaller
RECHECK = 5.0  # a space is searched again when its other directions gained this multiple of their mean weight
POWER_ITERATIONS = 12  # for a direction that stands out EMERGENCE-fold: 30^−12 of the others is left, below round-off
BALANCE_NOISE = 8.0  # round-offs of the largest entry that add up in D_l
LOST = 10.0  # times that round-off: the weight below which it decides what becomes of a direction …
REGROWN = 100.0  # … and from which it is seen to have decided


@dataclass(slots=True, eq=False, repr=False)
class Frames(State, Batched):
    """Frames of all spaces of a batch: the network holds Ŵ_l = O_l W_l O_{l-1}ᵀ.

    Attributes:
        cost: the cost in these frames; it keeps O_0 and O_L.
        hidden: O_1, …, O_{L-1}, each (B, n_l, n_l).
        leading: number of aligned leading directions of each space and member, each (B,).
        checked: weight left to the other directions of each space when it was last searched, each (B,).
        volume: log det M_l on them at that time, where a hidden space is narrow enough for all to be needed, each (B,).
        balance: conserved D_l = W_{l+1}ᵀW_{l+1} − W_lW_lᵀ of the hidden spaces in their frames, each (B, n_l, n_l).
        unresolved: round-off of that D_l at the start, each (B,).
        resolved: directions of the hidden spaces that had more weight than that when last looked at, each (B, n_l).
        lost: those that have decayed to less, each (B, n_l).
        undecided: members in which such a direction came back: round-off of the start decided it, (B,).
    """

    cost: FramedCost
    hidden: list[Tensor]
    leading: list[Tensor]
    checked: list[Tensor]
    volume: list[Tensor]
    balance: list[Tensor]
    unresolved: list[Tensor]
    resolved: list[Tensor]
    lost: list[Tensor]
    undecided: Tensor

    @classmethod
    def identity(cls, network: Network, cost: Cost) -> Frames:
        """The frame a network comes in."""
        like = network.theta
        eyes = [torch.eye(n, dtype=like.dtype, device=like.device).repeat(network.batch, 1, 1) for n in network.hidden]
        leading = [torch.zeros(network.batch, dtype=torch.long, device=like.device) for _ in network.dims]
        checked = [torch.zeros_like(like[:, 0]) for _ in network.dims]
        volume = [torch.full_like(each, torch.inf) for each in checked]
        eps = BALANCE_NOISE * torch.finfo(like.dtype).eps
        unresolved = [eps * weights.amax(-1) for weights in direction_weights(network)[1:-1]]
        framed = FramedCost(cost, network.batch, like, excess_out_of_reach(cost, network))
        resolved, lost = ([torch.zeros_like(eye[:, 0], dtype=torch.bool) for eye in eyes] for _ in range(2))
        undecided = torch.zeros_like(like[:, 0], dtype=torch.bool)
        balance = network.balancedness()
        return cls(framed, eyes, leading, checked, volume, balance, unresolved, resolved, lost, undecided)

    def to_original(self, network: Network, member: int) -> list[Tensor]:
        """Layers of one member in the frame the run started in: W_l = O_lᵀ Ŵ_l O_{l-1}."""
        o = [self.cost.right, *self.hidden, self.cost.left]
        return [o[i + 1][member].T @ w[member] @ o[i][member] for i, w in enumerate(network.weights)]


def align(network: Network, frames: Frames, settled: bool = False) -> bool:
    """Turn every space, in place, so that its leading directions lie along its first axes.

    Args:
        settled: leave directions of comparable size as they lie towards each other, only keep small ones apart.

    Returns whether any space of any member has a leading direction (else nothing was changed).
    """
    spaces = range(len(network.dims))
    for space in spaces[1:-1]:
        _watch(network, frames, space)
    for space in spaces:
        _realign(network, frames, space, settled)
    for space in spaces:
        _promote(network, frames, space)
    for space in spaces[1:-1]:
        _restore_balance(network, frames, space)
        _restore_small_balance(network, frames, space)
        limit = LOST * frames.unresolved[space - 1].unsqueeze(-1)
        frames.resolved[space - 1] = _standing(network, frames, space) > limit
    return any(bool((k > 0).any()) for k in frames.leading)


def _watch(network: Network, frames: Frames, space: int) -> None:
    """Note which directions of a hidden space have decayed to the round-off of D_l, and whether one came back."""
    unresolved, weights = frames.unresolved[space - 1].unsqueeze(-1), _standing(network, frames, space)
    frames.lost[space - 1] |= frames.resolved[space - 1] & (weights < LOST * unresolved)
    frames.undecided |= (frames.lost[space - 1] & (weights > REGROWN * unresolved)).any(-1)


def _standing(network: Network, frames: Frames, space: int) -> Tensor:
    """M_ii of leading directions i, and of the others the largest, (B, n_l)."""
    weights = space_weights(network, space)
    rest = torch.arange(weights.shape[-1], device=weights.device) >= frames.leading[space].unsqueeze(-1)
    return torch.where(rest, (weights * rest).amax(-1, keepdim=True), weights)


def learned_directions(network: Network, frames: Frames) -> tuple[Tensor, Tensor] | None:
    """Leading output and input directions that carry a learned mode, boolean (B, k) each; None where there are none."""
    k = int(torch.minimum(frames.leading[0], frames.leading[-1]).max())
    if k == 0 or network.depth < 2:
        return None
    out = []
    for space in (network.depth, 0):
        weights = space_weights(network, space)[:, :k]
        leads = torch.arange(k, device=weights.device) < frames.leading[space].unsqueeze(-1)
        out.append(leads & (weights > LEARNED * weights.amax(-1, keepdim=True)))
    a = network.product()[:, :k, :k]
    least = LEARNED**network.depth * a.square().amax((-2, -1)).unsqueeze(-1)
    return out[0] & (a.square().sum(-1) > least), out[1] & (a.square().sum(-2) > least)


def _realign(network: Network, frames: Frames, space: int, settled: bool) -> None:
    """One power step per leading direction: x ∝ M e_i on the axes from i on.

    At the ends of the network, M of a direction that carries a learned mode is that of A: layers are coupled to what
    is not learned by terms of size α², and where their axes are off those of A, ∇C along a learned direction has to
    rest at a small number, which its round-off hides on long plateaus.
    """
    leading = frames.leading[space]
    learned = learned_directions(network, frames) if space in (0, network.depth) else None
    for i in range(int(leading.max())):
        column = _gram_times_axis(network, space, i)[:, i:]
        if learned is not None and i < learned[0].shape[1]:
            a = network.product() if space == network.depth else network.product().mT
            whole = (a @ a[:, i].unsqueeze(-1)).squeeze(-1)[:, i:]
            column = torch.where((learned[0] & learned[1])[:, i : i + 1], whole, column)
        x, _ = _normalized(column)
        tail = x[:, 1:] * (leading > i).unsqueeze(-1) * torch.sign(x[:, :1])
        if settled:
            weights = space_weights(network, space)
            tail = tail * (weights[:, i + 1 :] < SEPARATED * weights[:, i : i + 1])
        _turn(network, frames, space, i, tail)


def _promote(network: Network, frames: Frames, space: int) -> None:
    """Add directions that have grown out of the rest, each found by power iteration on the axes not yet leading."""
    n = network.dims[space]
    leading = frames.leading[space]
    axes = torch.arange(n, device=leading.device)
    while True:
        open_axes = axes >= leading.unsqueeze(-1)
        weights = space_weights(network, space) * open_axes
        total = weights.sum(-1)
        count = (n - leading).clamp_min(1)
        volume = _volume(network, space, open_axes)
        changed = total > frames.checked[space] * (1 + RECHECK / count)
        changed |= volume < frames.volume[space] - math.log(EMERGENCE)
        if not bool(changed.any()):
            return
        frames.checked[space] = torch.where(changed, total, frames.checked[space])
        frames.volume[space] = torch.where(changed, volume, frames.volume[space])
        x, emerged = torch.zeros_like(weights), torch.zeros_like(changed)
        x[changed], emerged[changed] = _emerging(network.select(changed), space, open_axes[changed], weights[changed])
        if not bool(emerged.any()):
            return
        for i in leading[emerged].unique().tolist():
            chosen = emerged & (leading == i)
            head = x[:, i : i + 1]
            tail = x[:, i + 1 :] * torch.where(head < 0, -1.0, 1.0) * chosen.unsqueeze(-1)
            _turn(network, frames, space, i, tail)
        leading += emerged.long()
        frames.checked[space] = torch.where(emerged, torch.zeros_like(total), frames.checked[space])


def _emerging(network: Network, space: int, open_axes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The largest direction of the open axes, (B, n_l), and whether it has grown out of the others, boolean (B,)."""
    x = torch.zeros_like(weights).scatter_(1, weights.argmax(-1, keepdim=True), 1.0)
    for _ in range(POWER_ITERATIONS):
        x, value = _normalized(_gram_times(network, space, x) * open_axes)
    return x, _stands_out(network, space, open_axes, weights) & (open_axes.sum(-1) > 1) & (value > 0)


def _volume(network: Network, space: int, open_axes: Tensor) -> Tensor:
    """log det M_l on the open axes of a hidden space no wider than an end, (B,): it falls as a direction decays.

    Infinite elsewhere: wider spaces have directions to spare, and lose none that matters.
    """
    n = network.dims[space]
    if not 0 < space < network.depth or n > min(network.shape):
        return torch.full_like(network.theta[:, 0], torch.inf)
    below, above = network.weights[space - 1], network.weights[space]
    both = open_axes.unsqueeze(-1) & open_axes.unsqueeze(-2)
    matrix = torch.where(both, below @ below.mT + above.mT @ above, 0.0)
    matrix.diagonal(dim1=-2, dim2=-1).add_((~open_axes).to(matrix.dtype))
    return torch.linalg.slogdet(matrix)[1]


def _stands_out(network: Network, space: int, open_axes: Tensor, weights: Tensor) -> Tensor:
    """Whether among the open axes a few directions, one or several, outweigh all the others, boolean (B,).

    Several modes may have been learned before anybody looked: then none of them stands out alone. The largest
    weights λ are found by subspace iteration; no more directions can be learned than A has singular values.
    """
    n, neighbours = network.dims[space], network.dims[max(space - 1, 0) : space + 2]
    room = min(n, sum(neighbours) - n)  # the rank that M can have
    # Behind a bottleneck the directions that its width allows are all there are, and nothing has to be left over.
    q = min(room, max(n - 1, 1), *network.shape)
    x = torch.zeros_like(weights).unsqueeze(-1).repeat(1, 1, q)
    x.scatter_(1, weights.topk(q, dim=-1).indices.unsqueeze(1), 1.0)
    mask = open_axes.unsqueeze(-1)
    for _ in range(POWER_ITERATIONS):
        x = torch.linalg.qr(_gram_times_block(network, space, x) * mask)[0] * mask
    values = torch.linalg.eigvalsh(x.mT @ (_gram_times_block(network, space, x) * mask)).flip(-1).clamp_min(0.0)
    rest = (weights.sum(-1, keepdim=True) - values.cumsum(-1)).clamp_min(0.0)
    below = open_axes.sum(-1, keepdim=True) - torch.arange(1, q + 1, device=weights.device)
    others = (below - (n - room)).clamp_min(1)  # without those that are empty in any network of this shape
    return ((below > 0) & (values > 0) & (values > EMERGENCE * rest / others)).any(-1)


def _turn(network: Network, frames: Frames, space: int, i: int, tail: Tensor) -> None:
    """Rotate one space so that the unit vector x = (√(1−|tail|²), tail) on its axes i, i+1, … becomes axis i."""
    head = (1.0 - tail.square().sum(-1)).clamp_min(0.0).sqrt()
    if space > 0:
        turn_rows(network.weights[space - 1], i, head, tail)
    if space < network.depth:
        turn_rows(network.weights[space].mT, i, head, tail)
    if space == 0:
        frames.cost.turn_input(i, head, tail)
    elif space == network.depth:
        frames.cost.turn_output(i, head, tail)
    else:
        balance = frames.balance[space - 1]
        for matrix in (frames.hidden[space - 1], balance, balance.mT):
            turn_rows(matrix, i, head, tail)


def _restore_balance(network: Network, frames: Frames, space: int) -> None:
    """Put the conserved coupling D_ij of leading directions i to smaller ones j back to its value.

    Round-off of ∇C along learned directions, times plateaus of length α^−(L−2), tilts the output of a learned
    direction in W_l against its input in W_{l+1}; learned and unlearned modes then mix through the tilt.
    D_ij tells the tilt apart from a rotation, and the flow conserves it.
    """
    leading, balance = frames.leading[space], frames.balance[space - 1]
    below, above = network.weights[space - 1], network.weights[space].mT
    weights = space_weights(network, space)
    for i in range(int(leading.max())):
        row, column = below[:, i], above[:, i]
        found = (above[:, i + 1 :] @ column.unsqueeze(-1) - below[:, i + 1 :] @ row.unsqueeze(-1)).squeeze(-1)
        # Directions of comparable size are left alone: to tilt one back would move A as much as it moves D.
        apart = weights[:, i + 1 :] < SEPARATED * weights[:, i : i + 1]
        excess = (found - balance[:, i, i + 1 :]) * ((leading > i).unsqueeze(-1) & apart)
        # In a network of exactly low rank, leading directions may be round-off themselves: D says nothing of those.
        excess = excess * (excess.abs() > frames.unresolved[space - 1].unsqueeze(-1))
        size = weights[:, i : i + 1] + weights[:, i + 1 :]
        _shear(below, above, i, excess / size.clamp_min(torch.finfo(row.dtype).tiny))


def _restore_small_balance(network: Network, frames: Frames, space: int) -> None:
    """Put the conserved D_ii of small directions i back: it says what becomes of a mode that passes through zero.

    A mode with the wrong sign has to lose a layer first. Where layers are balanced none can be lost, the mode decays as
    a power of time and the path stays at its saddle; errors of steps would unbalance the layers and let it go.
    Scaling W_l's row by √q and W_{l+1}'s column by 1/√q leaves A, and |column|²/q − |row|² q = D_ii has one solution.
    """
    below, above = network.weights[space - 1], network.weights[space].mT
    rows, columns = below.square().sum(-1), above.square().sum(-1)
    target = frames.balance[space - 1].diagonal(dim1=-2, dim2=-1)
    weights = rows + columns
    small = weights < SEPARATED * weights.amax(-1, keepdim=True)
    wrong = (columns - rows - target).abs() > frames.unresolved[space - 1].unsqueeze(-1)
    root = (target.square() + 4 * rows * columns).sqrt()
    q = torch.where(target > 0, 2 * columns / (root + target), (root - target) / (2 * rows))
    factor = torch.where(small & wrong & (rows > 0) & (columns > 0), q, 1.0).sqrt().unsqueeze(-1)
    below *= factor
    above /= factor


def _shear(below: Tensor, above: Tensor, i: int, share: Tensor) -> None:
    """W_l ← (1 + Ω) W_l and W_{l+1} ← W_{l+1} (1 + Ω)⁻¹ in place, Ω = e_i ωᵀ + ω e_iᵀ for small ω on the axes behind i.

    D_ij falls by ω_j (M_ii + M_jj). W_{l+1}W_l, and with it A, stays to third order in ω: whatever it moved would be
    multiplied by the fastest rates of the flow.

    Args:
        below: W_l, (B, n, …); above: W_{l+1}ᵀ, (B, n, …); share: ω, (B, n − i − 1).
    """
    omega = share.unsqueeze(-1)
    for matrix, sign in ((below, 1.0), (above, -1.0)):
        head, tail = matrix[:, i].clone().unsqueeze(-2), matrix[:, i + 1 :]
        across = omega.mT @ tail
        if sign < 0:  # (1 + Ω)⁻¹ = 1 − Ω + Ω² − …
            head, across = head - across, across - omega.square().sum(-2, keepdim=True) * head
        matrix[:, i] += sign * across.squeeze(-2)
        matrix[:, i + 1 :] += sign * omega * head


def _normalized(v: Tensor) -> tuple[Tensor, Tensor]:
    """(v/|v|, |v|) for vectors of shape (B, n), by way of their largest entry: squares of small ones underflow.

    A vector of zeros, met in networks of exactly low rank, stays one and leaves its axis where it is.
    """
    largest = v.abs().amax(-1, keepdim=True)
    scaled = v / torch.where(largest >= torch.finfo(v.dtype).tiny, largest, torch.inf)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / norm.clamp_min(1.0), (norm * largest).squeeze(-1)


def _gram_times(network: Network, space: int, x: Tensor) -> Tensor:
    """M_l x for vectors x of shape (B, n_l)."""
    return _gram_times_block(network, space, x.unsqueeze(-1)).squeeze(-1)


def _gram_times_block(network: Network, space: int, x: Tensor) -> Tensor:
    """M_l x for x of shape (B, n_l, m)."""
    out = torch.zeros_like(x)
    if space > 0:
        w = network.weights[space - 1]
        out = out + w @ (w.mT @ x)
    if space < network.depth:
        w = network.weights[space]
        out = out + w.mT @ (w @ x)
    return out


def _gram_times_axis(network: Network, space: int, i: int) -> Tensor:
    """M_l e_i, shape (B, n_l)."""
    terms = []
    if space > 0:
        w = network.weights[space - 1]
        terms.append((w @ w[:, i].unsqueeze(-1)).squeeze(-1))
    if space < network.depth:
        w = network.weights[space]
        terms.append((w.mT @ w[:, :, i].unsqueeze(-1)).squeeze(-1))
    return reduce(torch.add, terms)
