"""Work against precision: dlnphase beside general solvers of differential equations, on the same networks and starts.

``python -m bench.work_precision`` runs the sweep (docs/work-precision.md says what is measured), and writes
docs/data/work-precision.json; with ``--draw`` it makes figure and tables of the page from that file alone.
``equation`` is the flow in NumPy, ``problems`` what is solved, ``solvers`` who solves it, ``references`` what they are
measured against, ``page`` figure and tables.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy is loaded: one thread
    os.environ[_name] = "1"
