"""Settings of every command, each a frozen dataclass read as one table.

A field carries its parser, help, panel, flag and what it replaces. Flags, ``--config`` files, Python values,
error messages, the ``config`` block of results and the reference in the docs are all read off that table.

Enters: texts of flags, values of YAML, Python values.
Leaves: one frozen dataclass with everything resolved that needs no file, or an
:class:`~dlnphase.errors.InputError` in one line.

Open

- `train.py`, `sweep.py`, `detect.py`, `plot.py` for the settings of one command;
- `common.py` for machine, task and network, `costs.py` for the cost and the table of costs, `dynamics.py` for
  how a network is followed and the table of dynamics; `plot.py` has the table of figures;
- `parse.py` for what a value may be, in words and as a function;
- `table.py` for what a setting is, and how flags, a file and defaults are put together.

Keep

- Nothing here imports torch, NumPy or anything else that ``--help`` would wait for (tests/test_house.py); so a
  table here names functions of rooms below by their file, and does not import them.
- A value is parsed the same whatever way it came in, and a parsed value parses to itself
  (tests/test_settings.py).
- Settings that another one derives from are in its ``replaces``: a derived value never outlives what it was
  derived from (tests/test_default_names.py).
- A name is for ever: taking one away needs a new version of the schema (tests/test_schemas.py).
- Every option is in the reference and in the help in words (tests/test_reference.py,
  tests/test_words_of_options.py).
"""

from dlnphase.settings.common import MachineSettings, NetworkSettings, TaskSettings
from dlnphase.settings.costs import CostSettings
from dlnphase.settings.detect import DetectSettings
from dlnphase.settings.dynamics import DynamicsSettings
from dlnphase.settings.plot import PlotSettings
from dlnphase.settings.sweep import SweepSettings
from dlnphase.settings.table import Option, Settings, default_words, option, options, resolve
from dlnphase.settings.train import TrainSettings

__all__ = [
    "CostSettings",
    "DetectSettings",
    "DynamicsSettings",
    "MachineSettings",
    "NetworkSettings",
    "Option",
    "PlotSettings",
    "Settings",
    "SweepSettings",
    "TaskSettings",
    "TrainSettings",
    "default_words",
    "option",
    "options",
    "resolve",
]
