"""Settings of every command, each a frozen dataclass read as one table (see ``table``). Nothing here imports torch."""

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
