"""Runs of the flow to their end, and what their records say."""

import numpy as np

from dlnphase.backend import resolve_backend
from dlnphase.dynamics import gradient_flow
from dlnphase.dynamics.flow import METHODS as METHODS
from dlnphase.networks.sampling import gaussian_network

CPU = resolve_backend("cpu")


def follow(network, cost, **options):
    """All records of a run."""
    return list(gradient_flow(network, cost, **options))


def at(records, time, member=0):
    """A of one member at exactly this time."""
    for record in records:
        for i, (who, when) in enumerate(zip(record.members, record.time, strict=True)):
            if who == member and when == time:
                return record.A[i]
    raise AssertionError(f"no record of member {member} at t = {time}")


def last(records, member=0):
    """(reason, A, excess, time, weights-index record) of the last record of a member."""
    for record in reversed(records):
        for i, who in enumerate(record.members):
            if who == member:
                return record.reasons[i], record.A[i], record.excess[i], record.time[i]
    raise AssertionError(f"no record of member {member}")


def gaussian(dims, sigma, members=(0,), backend=CPU, seed=0):
    return gaussian_network(dims, sigma, backend, seed=seed, members=members)


def random_target(shape, values, seed=0):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, len(values))))[0] for n in shape)
    return (u * np.array(values)) @ v.T
