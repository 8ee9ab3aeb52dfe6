"""``python -m dlnphase`` is the command ``dlnphase``."""

from dlnphase.cli.app import main

if __name__ == "__main__":
    main()
