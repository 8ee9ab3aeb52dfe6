"""From settings and a user's files to what a verb works on: backend, task, starting networks, their
representation.

All that can be refused is refused here, before any work is done, in one line that names the option or file,
what was found and what is expected.

Enters: settings of a command; files of a user.
Leaves: a :class:`~dlnphase.backend.Backend`, a :class:`~dlnphase.costs.tasks.Task`, a
:class:`~dlnphase.setup.build.Start` (networks and what they are), an update with its step, and the settings
with what only the files could tell.

Open

- `build.py` for all of it in order: backend, task, starts; `resolved.py` for settings without holes;
- `convex.py` for tasks whose cost is not quadratic (a cost is a row in settings/costs.py);
- `descending.py` for the rule, noise and step of a discrete algorithm;
- `representation.py` and `pilot.py` for full or reduced: what truncation costs, measured on the first burst;
- `inputs.py` for arrays, `labelled.py` for samples with classes, `states.py` for state dicts and checkpoints (a
  row for each format), `repeats.py` for options that say what a file says already.

Keep

- Nothing is ever unpickled, and nothing is allocated because a header says so (tests/test_house.py,
  tests/test_inputs.py, tests/test_mutations.py).
- Whoever gets a network does not ask whether it is full or reduced; `representation.py` alone decides, and says
  what is promised (tests/test_krylov.py).
- Every draw has a named stream of its own from the seed (`stream` in backend.py): drawing more of one thing
  never moves another (tests/test_tasks.py, tests/test_backend.py).
- A column of labels is never learned as numbers in silence (tests/test_csv.py).
"""
