"""What takes one step of the flow for a batch: one method per file.

A stepper is a module. It has ``step`` and the constants ``STAGES`` (evaluations a step) and ``EMBEDDED_ORDER``
(the order that the step size is chosen by), and no memory: what lasts from one step to the next is the
driver's.

Enters: a :class:`~dlnphase.dynamics.steppers.stiff_solver.Point` (the network where it stands, with its
products), the framed cost, a step size for each member, shape (B,), the sizes that errors are measured by.
Leaves: θ after the step, shape (B, P), and the estimated error relative to what is allowed, shape (B,). Whether
the step is taken is not decided here.

Open

- `rosenbrock.py` for the stiff method, ROS34PW2, and the shape that a new method takes;
- `dormand_prince.py` for the explicit pair, an independent check of it;
- `stiff_solver.py` for what both use: a point with its products, what an error of A is worth, and the one
  linear solve that holds every fast direction.

A new method is a file here and a line in STEPPERS of dynamics/flow.py.

Keep

- Tableau letters (A, b, c, h) stay inside a kernel, words outside.
- The declared order is the measured one, within 0.3, and the conditions of order hold
  (tests/test_integrators.py); each method meets exact solutions and SciPy (tests/test_flow.py, which runs over
  every method).
- No step size, time or reason to stop in here: dynamics/step_control.py has them.
- Nothing is formed first and subtracted later where one is round-off of the other (tests/test_frames.py).
"""
