"""The verb ``sweep-gamma``: cells of γ × width, where they are computed, and what they say together.

Enters: :class:`~dlnphase.settings.SweepSettings`; with ``--resume`` the cells that a file holds already.
Leaves: a :class:`~dlnphase.results.sweep.SweepResult`, told again after every batch of cells, so that what is
done is on disk while the rest is computed.

Open

- `run.py` for the verb: which cells there are, in what order they are sent, what exponents and crossings
  follow;
- `cells.py` for one batch of cells of one width: distances, and with ``--train`` the dynamics from the same
  starts;
- `executors.py` for where they are computed: in this process, in others, on a Dask cluster.

What is measured in a cell belongs into distances/ or training/, what is kept of it into results/sweep.py; here
it is put together.

Keep

- A :class:`~dlnphase.sweep.cells.Job` is all that a worker needs, to be pickled and sent; nothing is read from
  disk there. The file is the same, bit for bit, however many workers there were and in whatever order they
  ended (tests/test_sweep.py, tests/test_determinism.py, tests/test_cluster.py).
- A cell that fails is named with its reason, and takes no other with it; the command then ends with code 1.
- Draws depend on seed, member, depth and width alone: a cell does not know its neighbours.
- An exponent is made of attained distances and says its interval; verdicts on which is nearer come from proved
  bounds (tests/test_lower_bounds.py), never from the attained ones.
"""
