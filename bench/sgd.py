"""The yardstick: torch autograd and torch.optim.SGD on the full network, the way one would write it in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from time import process_time

import torch

from dlnphase.costs.quadratic import QuadraticCost
from dlnphase.dynamics import gradient_descent, gradient_flow
from dlnphase.networks.chain import Network
from dlnphase.networks.krylov import project

clock = process_time  # CPU seconds of this process: on one thread, what a wall clock shows on an idle machine
STABILITY = 0.9  # of the largest step that is stable everywhere on the path


@dataclass(frozen=True)
class Run:
    """A way to the minimum: seconds, steps, the matrix reached, and whether the seconds were measured to the end."""

    seconds: float
    steps: int
    matrix: torch.Tensor
    measured: bool = True


def sharpest(network: Network, cost: QuadraticCost) -> float:
    """Largest Gauss–Newton eigenvalue of the loss along the path of the flow from a network."""
    curvature, top = cost.curvature(), 0.0
    for number, record in enumerate(gradient_flow(network, cost)):
        if number % 5 == 0 or record.reasons[0]:
            at = Network.from_weights([torch.as_tensor(w) for w in record.weights(0)])
            top = max(top, float(torch.linalg.eigvals(at.ntk()[0] @ curvature).real.max()))
    return top


def autograd_sgd(network: Network, cost: QuadraticCost, lr: float, tol: float, max_steps: int) -> Run:
    """Autograd and SGD from the network until the excess cost is ``tol`` of its first value, or ``max_steps``."""
    layers = [torch.nn.Parameter(w[0].clone()) for w in network.weights]
    optimizer = torch.optim.SGD(layers, lr=lr)
    target, mask = cost.minimizer, cost.operator
    level, started = None, clock()
    for step in range(max_steps + 1):
        a = layers[0]
        for w in layers[1:]:
            a = w @ a  # from the narrow end: d_in columns, never a product of two wide layers
        loss = 0.5 * (mask * (a - target)).square().sum()
        level = tol * loss.item() if level is None else level
        if loss.item() <= level or step == max_steps:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Run(clock() - started, step, a.detach())


def extrapolated_sgd(network: Network, cost: QuadraticCost, lr: float, tol: float, probe: int) -> Run:
    """Seconds a step of autograd SGD, measured over ``probe`` steps, times the steps that it needs.

    The steps are counted by gradient descent with the same step on the Krylov projection of the same start.
    """
    seconds = autograd_sgd(network, cost, lr, 0.0, probe).seconds / probe
    last = None
    for record in gradient_descent(
        project(network, 4).network, cost, lr=lr, max_steps=10**7, tol=tol, record_every=1000
    ):
        last = record
    assert last is not None and last.reasons == ["converged"], last
    steps = int(last.step[0])
    return Run(seconds * steps, steps, torch.as_tensor(last.A[0]), measured=False)
