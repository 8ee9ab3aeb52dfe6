"""Convex costs on the end-to-end matrix, and the tasks they come from.

Enters: arrays of a user or a planted matrix, and the backend.
Leaves: a :class:`~dlnphase.costs.interface.ConvexCost`: a function of A, batched, with its gradient, its
Hessian products, and what is known of its minimum. A :class:`~dlnphase.costs.tasks.Task` is a cost to train on,
its test cost and what was planted.

Open

- `interface.py` for everything that may be asked of a cost; `check.py` for whether a cost of one's own is what
  it says;
- `quadratic.py` for the squared costs, `hessians.py` for what follows from the form of their Hessian (entries,
  inputs, dense), `lengths.py` for how a cost measures matrices, `labelled.py` for squared costs of classes;
- `sampled.py` for what makes a cost out of a loss, on `sampling.py` (what is seen of A); a loss is a file:
  `huber.py`, `logistic.py`, `cross_entropy.py`, and a row in settings/costs.py; `convex.py` for costs from
  arrays;
- `minimise.py` for minima that no formula tells; `observations.py` for a cost as a sum of parts, `accuracy.py`
  for shares of right answers, `round_off.py` for what counts as round-off;
- `own.py` for a user's cost, `tasks.py` for tasks.

Keep

- Nobody asks what kind a cost is: it answers, or says None where it does not know. Forms of Hessians are
  compared in `hessians.py` alone.
- Digits are kept near the minimum: a cost is its excess, and nothing is the difference of two large numbers
  (tests/test_costs.py, tests/test_convex_costs.py, against mpmath).
- Every cost that a command offers has an oracle that shares no code with it (tests/convex_problems.py).
- Data is met once: a regression keeps second moments, and the price of a cost does not grow with the samples.
"""
