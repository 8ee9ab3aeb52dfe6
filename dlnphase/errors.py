"""Errors that a user can act on; the command line turns each into one line and an exit code."""


class DlnphaseError(Exception):
    """Base of every error that dlnphase raises on purpose."""


class InputError(DlnphaseError, ValueError):
    """A setting or an input file is wrong: says which, what was found and what is expected (exit code 2)."""


class RunError(DlnphaseError, RuntimeError):
    """A run that started well could not be finished (exit code 1)."""


def describe(error: BaseException) -> str:
    """One line about an error."""
    words = " ".join(str(error).split()) or "no message"
    words = words if len(words) <= 300 else words[:297] + "..."
    return words if isinstance(error, DlnphaseError) else f"{type(error).__name__}: {words}"
