"""The standing figures of the project: ``python -m bench`` (or ``make bench``). Not part of the installed package."""
