"""Constraints on products of consecutive layers, linearised by hand.

Every set this package measures a distance to is cut out by equations on chains of layers:

    global minima     Bᵀ vec(W_L ⋯ W_1) = target             (one chain, all layers)
    saddles           W_b ⋯ W_1 V = 0 and W_aᵀ ⋯ W_Lᵀ U = 0   (dead directions, from the right and from the left)
                      Bᵀ vec(U_cᵀ W_L ⋯ W_1 V_c) = target     (what is kept is still fitted)

A :class:`Term` is one such equation E · (M_k ⋯ M_1) · Y, with M the layers (or their transposes) in the order
they are applied. A :class:`Constraint` stacks terms and answers, at one batch of networks: value c, Jv, Jᵀλ,
solutions of (JJᵀ)x = r and products with the Hessian of ⟨λ, c⟩, each in O(L) matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor

from dlnphase.distances.gram import Bordered, Cholesky, Inverse, Sylvester
from dlnphase.networks.chain import Network, split
from dlnphase.networks.products import products_above, products_below

DENSE_LIMIT = 1600  # above this many equations that meet, JJᵀ is applied, not formed
ORTHOGONAL = 1e-12  # inner products of orthonormal columns below this are round-off
CG_TOLERANCE = 1e-13  # of the residual: projections are as exact as by a factorisation
CG_STEPS = 400  # at most: time against projections of chains that are nearly singular


@dataclass(frozen=True)
class Term:
    """One block of equations: basisᵀ vec(end · M_k ⋯ M_1 · start) = target.

    Attributes:
        order: indices (from 0) of the layers in the order they are applied.
        flip: apply W_lᵀ instead of W_l.
        start: Y, shape (B, n, c).
        end: E, shape (B, r, n'), or None for the identity.
        basis: orthonormal columns, shape (B, r·c, k) or (r·c, k), or None for the identity.
        target: shape (B, k).
    """

    order: tuple[int, ...]
    flip: bool
    start: Tensor
    end: Tensor | None
    basis: Tensor | None
    target: Tensor

    def select(self, members: Tensor) -> Term:
        """The same equations for some members of the batch."""

        def pick(x: Tensor | None) -> Tensor | None:
            return x if x is None or x.ndim == 2 else x[members]

        return Term(self.order, self.flip, self.start[members], pick(self.end), pick(self.basis), self.target[members])

    def meets(self, other: Term) -> bool:
        """Whether the two have anything in common in JJᵀ: a layer that both depend on.

        It is nothing where that is the first layer of both alone, and they begin in it with orthogonal columns.
        """
        shared = set(self.order) & set(other.order)
        first = self.order[0]
        if shared == {first} and other.order[0] == first and other.flip == self.flip:
            return bool((self.start.mT @ other.start).abs().amax() > ORTHOGONAL)
        return bool(shared)

    def layers(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """M_1, …, M_k out of all layers (or tangents to them)."""
        return [weights[i].mT if self.flip else weights[i] for i in self.order]

    def read(self, value: Tensor) -> Tensor:
        """End products (B, n', c) → equations (B, k)."""
        out = value if self.end is None else self.end @ value
        flat = out.flatten(1)
        return flat if self.basis is None else _basis_t(self.basis, flat)

    def spread(self, multiplier: Tensor, rows: int) -> Tensor:
        """The transpose of :meth:`read`: (B, k) → (B, n', c)."""
        flat = multiplier if self.basis is None else _basis(self.basis, multiplier)
        columns = self.start.shape[-1]
        if self.end is None:
            return flat.view(-1, rows, columns)
        return self.end.mT @ flat.view(flat.shape[0], -1, columns)


class Constraint:
    """Equations c(θ) = 0 for a batch of networks of one shape."""

    def __init__(self, terms: Sequence[Term], scale: Tensor) -> None:
        """Args: terms; scale, shape (B, number of terms): the size against which a term's residual counts as zero."""
        self.terms = tuple(terms)
        self.scale = scale
        self._layout: tuple[list[list[int]], list[int]] | None = None

    def select(self, members: Tensor) -> Constraint:
        """The same constraint for some members."""
        out = Constraint([t.select(members) for t in self.terms], self.scale[members])
        out._layout = self._layout
        return out

    def layout(self, depth: int) -> tuple[list[list[int]], list[int]]:
        """Terms in groups that do not meet in JJᵀ, and those that run through all layers where others do not."""
        if self._layout is None:
            border = [i for i, term in enumerate(self.terms) if len(term.order) == depth]
            border = border if len(border) < len(self.terms) else []
            groups: list[list[int]] = []
            for i in (i for i in range(len(self.terms)) if i not in border):
                met = [g for g in groups if any(self.terms[i].meets(self.terms[j]) for j in g)]
                groups = [g for g in groups if g not in met] + [sorted([*(j for g in met for j in g), i])]
            self._layout = groups, border
        return self._layout

    def at(self, network: Network) -> Linearization:
        """Value and derivatives at a batch of networks."""
        return Linearization(self, network)


class Linearization:
    """c and its derivatives at one batch of networks; the factorisation of JJᵀ is made when first needed."""

    def __init__(self, constraint: Constraint, network: Network) -> None:
        self.constraint = constraint
        self.network = network
        self.layers = [term.layers(network.weights) for term in constraint.terms]
        self.states: list[list[Tensor]] = []
        values = []
        for term, layers in zip(constraint.terms, self.layers, strict=True):
            chain = products_below([term.start, *layers])
            self.states.append(chain)
            values.append(term.read(chain[-1]) - term.target)
        self.sizes = [v.shape[1] for v in values]
        self.value = torch.cat(values, 1)
        self._inverse: Inverse | None = None
        self._diagonal: Tensor | None = None

    def select(self, members: Tensor) -> Linearization:
        """The same at some members of the batch (indices, or a mask); JJᵀ is factorised anew."""
        return Linearization(self.constraint.select(members), self.network.select(members))

    def residual(self) -> Tensor:
        """Largest ‖c_t‖ / scale_t over the terms, shape (B,)."""
        norms = torch.stack([v.norm(dim=1) for v in self.value.split(self.sizes, 1)], 1)
        return (norms / self.constraint.scale).amax(1)

    def jvp(self, v: Tensor) -> Tensor:
        """Jv, shape (B, m), for flat directions (B, P)."""
        tangents = split(v, self.network.dims)
        out = []
        for term, layers, states in zip(self.constraint.terms, self.layers, self.states, strict=True):
            moves = term.layers(tangents)
            current = moves[0] @ states[0]
            for k in range(1, len(layers)):
                current = moves[k] @ states[k] + layers[k] @ current
            out.append(term.read(current))
        return torch.cat(out, 1)

    def vjp(self, multiplier: Tensor) -> Tensor:
        """Jᵀλ, shape (B, P)."""
        parts: list[Tensor | None] = [None] * self.network.depth
        for term, states, adjoints in zip(self.constraint.terms, self.states, self._pulled(multiplier), strict=True):
            for k, adjoint in enumerate(adjoints):
                _add(parts, term.order[k], adjoint, states[k], term.flip)
        return self._joined(parts)

    def bend(self, multiplier: Tensor) -> Callable[[Tensor], Tensor]:
        """The map v ↦ ∇²⟨λ, c⟩ v on flat directions (B, P)."""
        pulled = self._pulled(multiplier)

        def apply(v: Tensor) -> Tensor:
            tangents = split(v, self.network.dims)
            parts: list[Tensor | None] = [None] * self.network.depth
            for term, layers, states, adjoints in zip(
                self.constraint.terms, self.layers, self.states, pulled, strict=True
            ):
                moves = term.layers(tangents)
                delta = moves[0] @ states[0]
                for k in range(1, len(layers)):
                    _add(parts, term.order[k], adjoints[k], delta, term.flip)
                    if k + 1 < len(layers):
                        delta = moves[k] @ states[k] + layers[k] @ delta
                change: Tensor | None = None
                for k in range(len(layers) - 1, 0, -1):
                    step = moves[k].mT @ adjoints[k]
                    change = step if change is None else step + layers[k].mT @ change
                    _add(parts, term.order[k - 1], change, states[k - 1], term.flip)
            return self._joined(parts)

        return apply

    def solve(self, r: Tensor) -> Tensor:
        """x with JJᵀ x = r, shape (B, m): least-squares where equations repeat each other."""
        if self._inverse is None:
            groups, border = self.constraint.layout(self.network.depth)
            pieces = [*(g for g in groups if not self._is_short(g)), border]
            if any(sum(self.sizes[i] for i in piece) > DENSE_LIMIT for piece in pieces):
                return self._solve_iteratively(r)
            self._inverse = self._factorise(groups, border)
        return self._inverse(r.unsqueeze(2)).squeeze(2)

    def project(self, v: Tensor) -> Tensor:
        """The part of v tangent to the set {c = const}, shape (B, P)."""
        return v - self.vjp(self.solve(self.jvp(v)))

    # ---- JJᵀ ---------------------------------------------------------------------------------
    def gram(self) -> Tensor:
        """JJᵀ, shape (B, m, m)."""
        every = list(range(len(self.constraint.terms)))
        return self._gram(every, every, [self._adjoints(i) for i in every])

    def _gram(self, some: list[int], others: list[int], adjoints: list[list[Tensor]]) -> Tensor:
        """Rows of JJᵀ of some terms, columns of others."""
        rows: list[list[Tensor]] = []
        for a, i in enumerate(some):
            row = []
            for b, j in enumerate(others):
                row.append(rows[b][a].mT if some is others and b < a else self._block(i, j, adjoints))
            rows.append(row)
        return torch.cat([torch.cat(row, 2) for row in rows], 1)

    def _is_short(self, group: list[int]) -> bool:
        """Whether a group is one term whole of at most two layers."""
        term = self.constraint.terms[group[0]]
        return len(group) == 1 and len(term.order) <= 2 and term.end is None and term.basis is None

    def _factorise(self, groups: list[list[int]], border: list[int]) -> Inverse:
        adjoints = [self._adjoints(i) for i in range(len(self.constraint.terms))]
        solved, crossed = [], []
        corner = self._gram(border, border, adjoints) if border else None
        last = corner
        for group in groups:
            short = self._is_short(group)
            inverse = self._sylvester(group[0]) if short else Cholesky(self._gram(group, group, adjoints))
            solved.append((self._rows(group), inverse))
            if last is not None:
                between = self._gram(group, border, adjoints)
                crossed.append(inverse(between))
                last = last - between.mT @ crossed[-1]
        if corner is None or last is None:
            return solved[0][1] if len(solved) == 1 else Bordered(solved, slice(0, 0), [], None)
        complement = Cholesky((last + last.mT) / 2, corner.diagonal(dim1=1, dim2=2))
        return Bordered(solved, self._rows(border), crossed, complement)

    def _rows(self, some: list[int]) -> Tensor | slice:
        """Where the equations of some terms stand."""
        ends = list(accumulate(self.sizes, initial=0))
        if some == list(range(some[0], some[-1] + 1)):
            return slice(ends[some[0]], ends[some[-1] + 1])
        return torch.cat([torch.arange(ends[i], ends[i + 1], device=self.value.device) for i in some])

    def _sylvester(self, index: int) -> Sylvester:
        layers, states = self.layers[index], self.states[index]
        outer = layers[1] @ layers[1].mT if len(layers) == 2 else None
        return Sylvester(outer, states[0].mT @ states[0], states[-2].mT @ states[-2])

    def _adjoints(self, index: int) -> list[Tensor]:
        """E M_k ⋯ M_{j+1} for each layer of a term, shapes (B, r, n_j)."""
        term, layers, states = self.constraint.terms[index], self.layers[index], self.states[index]
        rows = states[-1].shape[1]
        like = self.network.theta
        last = torch.eye(rows, dtype=like.dtype, device=like.device).expand(like.shape[0], rows, rows)
        current = last if term.end is None else term.end.expand(like.shape[0], -1, -1)
        return products_above([*layers[1:], current])

    def _block(self, i: int, j: int, adjoints: list[list[Tensor]]) -> Tensor:
        first, second = self.constraint.terms[i], self.constraint.terms[j]
        total: Tensor | None = None
        for a, layer in enumerate(first.order):
            if layer not in second.order:
                continue
            b = second.order.index(layer)
            x, y = adjoints[i][a], self.states[i][a]
            x2, y2 = adjoints[j][b], self.states[j][b]
            if first.flip == second.flip:
                term = torch.einsum("bij,bkl->bikjl", x @ x2.mT, y.mT @ y2)
            else:
                term = torch.einsum("bil,bjk->bikjl", x @ y2, x2 @ y)
            total = term if total is None else total + term
        batch = self.network.batch
        if total is None:
            return self.value.new_zeros(batch, self.sizes[i], self.sizes[j])
        s = total.shape
        block = total.reshape(batch, s[1] * s[2], s[3] * s[4])
        if first.basis is not None:
            block = first.basis.mT @ block
        return block if second.basis is None else block @ second.basis

    def _solve_iteratively(self, r: Tensor) -> Tensor:
        """Conjugate gradients on JJᵀ, preconditioned by its diagonal."""
        if self._diagonal is None:
            self._diagonal = self._gram_diagonal()
        diagonal = self._diagonal
        x = torch.zeros_like(r)
        residual = r.clone()
        z = residual / diagonal
        p, rho = z, (residual * z).sum(1)
        goal = CG_TOLERANCE**2 * rho
        for _ in range(CG_STEPS):
            if bool((rho <= goal).all()):
                break
            q = self.jvp(self.vjp(p))
            step = torch.where(rho > goal, rho / (p * q).sum(1).clamp_min(torch.finfo(r.dtype).tiny), 0.0)
            x = x + step[:, None] * p
            residual = residual - step[:, None] * q
            z = residual / diagonal
            new = (residual * z).sum(1)
            p = z + torch.where(rho > goal, new / rho.clamp_min(torch.finfo(r.dtype).tiny), 0.0)[:, None] * p
            rho = torch.where(rho > goal, new, rho)
        return x

    def _gram_diagonal(self) -> Tensor:
        parts = []
        for index, term in enumerate(self.constraint.terms):
            pairs = zip(self._adjoints(index), self.states[index], strict=False)
            pieces = (torch.einsum("bi,bk->bik", (x**2).sum(2), (y**2).sum(1)).flatten(1) for x, y in pairs)
            total = reduce(torch.add, pieces)
            parts.append(total if term.basis is None else _basis_t(term.basis**2, total))
        return torch.cat(parts, 1)

    # ---- helpers -----------------------------------------------------------------------------
    def _pulled(self, multiplier: Tensor) -> list[list[Tensor]]:
        """For each layer of each term M_{j+1}ᵀ ⋯ M_kᵀ Eᵀλ, shapes (B, n_j, c)."""
        out = []
        parts = multiplier.split(self.sizes, 1)
        for term, layers, states, part in zip(self.constraint.terms, self.layers, self.states, parts, strict=True):
            spread = term.spread(part, states[-1].shape[1])
            out.append(products_below([spread, *(layer.mT for layer in reversed(layers[1:]))])[::-1])
        return out

    def _joined(self, parts: Sequence[Tensor | None]) -> Tensor:
        """What is given for each layer as flat vectors (B, P), zero where nothing is."""
        flat = [
            w.new_zeros(w.shape[0], w[0].numel()) if part is None else part.flatten(1)
            for part, w in zip(parts, self.network.weights, strict=True)
        ]
        return torch.cat(flat, 1)


def _add(parts: list[Tensor | None], index: int, left: Tensor, right: Tensor, flip: bool) -> None:
    """parts[index] += left · rightᵀ, transposed where the term applies transposed layers."""
    first, second = (right, left.mT) if flip else (left, right.mT)
    before = parts[index]
    parts[index] = first @ second if before is None else before.baddbmm_(first, second)


def _basis_t(basis: Tensor, flat: Tensor) -> Tensor:
    return flat @ basis if basis.ndim == 2 else torch.einsum("bdk,bd->bk", basis, flat)


def _basis(basis: Tensor, coordinates: Tensor) -> Tensor:
    return coordinates @ basis.T if basis.ndim == 2 else torch.einsum("bdk,bk->bd", basis, coordinates)
