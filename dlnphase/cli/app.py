"""The command ``dlnphase``: one file per command, registered here, errors turned into one line and an exit code.

To add a command: write ``dlnphase/cli/<name>.py`` with a function ``register(app)``, and list the module in COMMANDS.
A command file imports typer, its settings and the helpers of this package at the top, and everything that needs
torch, scipy or matplotlib inside the command's body, so that ``--help`` stays instant. The body returns its exit code
(None is 0); it raises InputError or RunError, and :func:`run` does the rest.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dlnphase import __version__
from dlnphase.cli.console import print_error
from dlnphase.cli.interrupts import INTERRUPTED, NOTHING_SAVED, ignore, leave_at_once
from dlnphase.cli.options import Group, paragraphs
from dlnphase.errors import InputError, RunError

# Read by the libraries when they are loaded. NumPy's own threads only cost here: its matrices are small, and large ones
# are torch's, under --threads. torch's threads sleep while they wait: spinning on a core that another process needs,
# two of them took 140 times as long as one (docs/benchmarks.md), and where cores are free they save no more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

COMMANDS = ("dlnphase.cli.train", "dlnphase.cli.sweep_gamma", "dlnphase.cli.detect_saddles", "dlnphase.cli.plot")

DONE, FAILED, USAGE = 0, 1, 2  # exit codes: the contract of scripts
NO_MEMORY = "not enough memory for these settings"
TORCH_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")  # how torch says it


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dlnphase {__version__}")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Deep linear networks, from the lazy to the saddle-to-saddle regime.

    Follow one network from its start to the minimum, measure the phase transition at γ = 1, certify the saddles a
    path visits, draw it all.
    """


def build_app() -> typer.Typer:
    """The application with every command registered."""
    app = typer.Typer(
        name="dlnphase",
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
        epilog="Start with:  dlnphase train      then:  dlnphase COMMAND --help",
    )
    app.callback(help=paragraphs(_root.__doc__ or ""))(_root)
    for module in COMMANDS:
        importlib.import_module(module).register(app)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed, 2 bad usage or input, 130 interrupted)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot write γ gets a ?, not a traceback
    try:
        code = typer.main.get_command(build_app()).main(
            list(sys.argv[1:] if arguments is None else arguments), prog_name="dlnphase", standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except InputError as error:
        print_error(str(error))
        return USAGE
    except RunError as error:
        print_error(str(error))
        return FAILED
    except (KeyboardInterrupt, typer.Abort):
        print_error(NOTHING_SAVED)
        return INTERRUPTED
    except MemoryError:
        print_error(NO_MEMORY)
        return FAILED
    except BrokenPipeError:
        _close_output()  # whoever read the output has left
        return DONE
    except OSError as error:
        print_error(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        _close_output()
        return FAILED
    except Exception as error:
        return _usage(error)


def _close_output() -> None:
    """What still waits to be written to stdout goes nowhere, instead of failing once more on the way out."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: Exception) -> int:
    """Typer's own complaints (an unknown option or command) as one line; anything else is a bug and shows itself."""
    message: Any = getattr(error, "format_message", None)
    if "LinAlgError" in type(error).__name__:  # of numpy, scipy or torch
        print_error(f"the numbers left the range in which a decomposition converges ({str(error).splitlines()[0]})")
        return FAILED
    if isinstance(error, RuntimeError) and any(words in str(error) for words in TORCH_NO_MEMORY):
        print_error(NO_MEMORY)
        return FAILED
    if message is None or not hasattr(error, "exit_code"):
        raise error
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message(), err=True)
        return USAGE
    where = f" (see {context.command_path} --help)" if context is not None else ""
    print_error(_plain(error, message()) + where)
    return USAGE


def _plain(error: Exception, words: str) -> str:
    """Typer's complaint in the manner of our own: no Python quotes, and the one option that was meant."""
    name, names = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if name and names:
        words = f"No such option: {name}, did you mean {difflib.get_close_matches(name, names, 1, 0.0)[0]}?"
    return re.sub(r"'([^'\s]+)'", r"\1", words).rstrip(".")


def main() -> None:
    """Entry point of the console script."""
    leave_at_once()
    code = run()
    ignore()
    sys.exit(code)
