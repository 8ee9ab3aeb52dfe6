"""The page on work and precision: its Jacobian, its references and one run, small."""

import itertools

import numpy as np
import torch

from bench.work_precision import page
from bench.work_precision import references as refs
from bench.work_precision.__main__ import apart, run
from bench.work_precision.equation import Chain
from bench.work_precision.problems import problem


def test_slope_and_jacobian_are_those_of_autograd():
    rng, dims = np.random.default_rng(5), (3, 4, 5, 2)
    chain = Chain.plain(dims, (rng.random((2, 3)) < 0.7).astype(float), rng.standard_normal((2, 3)))
    chain, theta = refs.turned(chain, rng.standard_normal(chain.size))  # frames are part of the equation
    mask, target, left, right = (torch.as_tensor(a) for a in (chain.mask, chain.target, chain.left, chain.right))

    def loss(flat):
        layers, start = [], 0
        for below, above in itertools.pairwise(dims):
            layers.append(flat[start : start + above * below].reshape(above, below))
            start += above * below
        return 0.5 * ((mask * (left @ torch.linalg.multi_dot(layers[::-1]) @ right.T - target)) ** 2).sum()

    given = torch.as_tensor(theta)
    hessian = torch.autograd.functional.hessian(loss, given).numpy()
    gradient = torch.autograd.functional.jacobian(loss, given).numpy()
    scale = np.abs(hessian).max()
    np.testing.assert_allclose(chain.slope(theta), -gradient, atol=1e-13 * scale)
    np.testing.assert_allclose(chain.jacobian(theta), -hessian, atol=1e-13 * scale)
    v = rng.standard_normal(chain.size)
    np.testing.assert_allclose(chain.jacobian_times(theta, v), -hessian @ v, atol=1e-12 * scale)


def test_the_smallest_case_from_references_to_tables():
    given = problem("tiny", 0.1)
    true = refs.crossings(given, 1e-2)
    assert max(apart(refs.crossings_again(given, 1e-4), true).values()) < 1e-4
    runs = [run(given, true, method, 1e-5, limit=30) for method in ("stabilised", "LSODA")]
    assert all(1e-9 < entry[measure] < 1e-3 for entry in runs for measure in page.MEASURES)
    known = {
        "references": {"tiny 0.1": {"apart": apart(true, true)}},
        "runs": [*runs, run(given, true, "stabilised", 1e-3, limit=0)],
    }
    assert "stopped at the limit" in page.omitted(known) and "LSODA (1e-05)" in page.ahead(known, "dwell")
    assert page.draw(known, "dwell").startswith(b"\x89PNG")
