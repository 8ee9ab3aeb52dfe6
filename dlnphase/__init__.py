"""dlnphase: the training dynamics of deep linear networks, measured beside their theory."""

__version__ = "0.1.0"
