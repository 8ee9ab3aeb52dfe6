"""The verb ``train``: settings → starting networks → records → result.

``dlnphase.train`` is the function `run.py` ends with. Dynamics yield records; what is here consumes them, and
analyses the path when it is over.

Enters: :class:`~dlnphase.settings.TrainSettings`; records of dynamics/.
Leaves: a :class:`~dlnphase.results.train.TrainResult` with its trajectory; while it is under way two files that
``--resume`` goes on from.

Open

- `run.py` for the verb: set up, follow, put the result together;
- `recording.py` for paths within bounds of memory, `keeping.py` for what is on disk while a run is under way;
- `reasons.py` for why a member ends, with what to do about it; `ends.py`, `narrow.py`, `decayed.py` for ends
  that only the analysis of A can tell;
- `analysis.py` for visits, transitions, regime and outcome; `modes.py`, `early.py`, `answers.py`, `noise.py`,
  `completed.py`, `distributions.py`, `basins.py` for one question each;
- `observing.py` for what is looked at besides A (what can be is in critical/observables.py);
- `theory.py`, `decay_theory.py` for what theory says of the run; `sentences.py`, `status.py`, `notebook.py` for
  telling it.

Keep

- Records are safe on disk before anything clever looks at them; killed at any moment, a run goes on to the same
  bits (tests/test_keeping.py, tests/test_faults.py).
- A regime, a rank or a transition is told from what was measured, never from theory: theory stands beside it
  (tests/test_train.py).
- `sentences.py`, `reasons.py` and `distributions.py` load no torch: figures of results use them
  (tests/test_startup.py).
- Every reason that a dynamics gives is a row of `reasons.py` (tests/test_house.py).
"""
