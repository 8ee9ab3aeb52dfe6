"""Statements proved by ball arithmetic: critical points, paths, and their checker (needs the extra ``proof``).

A ball is a midpoint with a radius that holds every rounding error. What is stated here is a theorem about the
floats that stand in the proof file, not a number that looked right.

Enters: a cost, a visited matrix or the exact start of a flow, as float64 arrays.
Leaves: claims as plain values with lower and upper ends, for results/proof.py; or
:class:`~dlnphase.proofs.balls.Undecided` where a comparison of balls cannot be decided.

Open

- `balls.py` for matrices of balls, `quadratic.py` for a cost as exact numbers;
- `chart.py`, `saddle.py`, `minimum.py` for one critical point: that it exists, its cost, that it is or is no
  minimum;
- `series.py`, `taylor.py`, `curvature.py`, `path.py` for a flow enclosed step by step; `theorem.py` for what follows
  from it;
- `checking.py`, `path_checking.py` for the checker.

Keep

- Ends are rounded outward, always: a lower end down, an upper end up. A comparison that is undecided is no
  success.
- The checker shares nothing with the provers but the formulas: of this room it imports `balls.py`, for python-flint
  and the precision, and `series.py`, which proves nothing (tests/test_house.py). It reads the file and derives every
  claim again, at a higher precision.
- A proof that was tampered with is refused, and crippled provers are caught (tests/test_proofs.py,
  tests/test_proofs_path.py).
- python-flint is imported when it is used: everything else runs without it.
- The words *measured*, *certified*, *proved* are never mixed: proved is what this room says.
"""
