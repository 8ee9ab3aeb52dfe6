"""Commands from settings tables: flags, help, defaults and panels read off ``dlnphase.settings``.

    def register(app):
        settings_command(app, "train", TrainSettings, train_cli, example="dlnphase train -g 2 -w 1000")

    def train_cli(call: Call[TrainSettings]) -> int: ...

The function gets a :class:`Call` (settings resolved from ``--config`` and flags, and the output options). Further
parameters of the function (a SOURCE argument, say) are ordinary typer parameters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import typer
import typer.core

from dlnphase.cli.console import print_error
from dlnphase.cli.interrupts import INTERRUPTED, NOTHING_SAVED
from dlnphase.errors import InputError
from dlnphase.settings.table import Option, Settings, default_words, options, resolve

S = TypeVar("S", bound=Settings)

OUTPUT_PANEL = "Output"
WIDEST = 16  # characters of the list of choices that is shown in place of a value, in the help of 80 columns


@dataclass(frozen=True)
class Call(Generic[S]):
    """One call of a command.

    Attributes:
        settings: resolved from ``--config`` and flags.
        out: ``--out``, or None for the default directory.
        overwrite, resume: what to do with a result that is there.
        json: print one JSON document instead of tables.
        quiet: print errors alone.
        bare: neither ``--config`` nor a flag says anything that decides the numbers.
    """

    settings: S
    out: Path | None
    overwrite: bool
    resume: bool
    json: bool
    quiet: bool
    bare: bool

    def directory(self, settings: Settings) -> Path:
        """``--out``, or a directory in ``runs/`` whose name tells these settings from any others."""
        if self.out is not None:
            return self.out
        from dlnphase.results.naming import default_name

        return Path("runs") / default_name(settings)


def _common() -> list[inspect.Parameter]:
    """The options every command has besides its settings."""
    where = f"where the result goes {_dim('runs/<command>-<settings>-<hash>')}"
    return [
        _text("config", "settings from a YAML file, or from a result file; flags win", "FILE"),
        _text("out", where, "DIR"),
        _switch("overwrite", "replace a result that is there"),
        _switch("resume", "go on with a result that is there (same settings only)"),
        _switch("json", "print one JSON document instead of tables"),
        _switch("quiet", "print errors alone", "-q"),
    ]


def _text(name: str, help: str, metavar: str) -> inspect.Parameter:
    info = typer.Option(f"--{name}", help=help, rich_help_panel=OUTPUT_PANEL, show_default=False, metavar=metavar)
    return _keyword(name, None, Annotated[str | None, info])


def _switch(name: str, help: str, *short: str) -> inspect.Parameter:
    info = typer.Option(f"--{name}", *short, help=help, rich_help_panel=OUTPUT_PANEL, show_default=False)
    return _keyword(name, False, Annotated[bool, info])


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


class _QuietHelp:
    """Help without the types of flags and arguments: ``--quiet`` is told by its words, not by ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters of the command and ``--help``."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if param.param_type_name == "argument" or getattr(param, "is_flag", False):
                param.display_type_rich = lambda ctx: None
        return params


class Command(_QuietHelp, typer.core.TyperCommand):
    """A command of dlnphase."""


class Group(_QuietHelp, typer.core.TyperGroup):
    """dlnphase itself."""


def settings_command(
    app: typer.Typer, name: str, cls: type[S], function: Callable[..., int | None], *, example: str
) -> None:
    """Register a command whose options are a settings table.

    Args:
        name: of the command.
        cls: its settings.
        function: takes a Call and its own typer parameters, returns the exit code; its docstring is the help.
        example: a command line shown under the help.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    table = options(cls)
    common = _common()
    names = {p.name for p in common}

    def command(**given: Any) -> int:
        extra = {p.name: given.pop(p.name) for p in own}
        shared = {n: given.pop(n) for n in names}
        flags = {n: value for n, value in given.items() if value is not None and value != []}
        try:
            call = Call(
                _resolve(cls, shared["config"], flags),
                _directory(shared["out"]),
                shared["overwrite"],
                shared["resume"],
                shared["json"],
                shared["quiet"],
                shared["config"] is None and not any(table[n].identity for n in flags),
            )
            return function(call, **extra) or 0
        except InputError as error:
            raise InputError(_as_typed(str(error), table, flags, shared["config"])) from error
        except KeyboardInterrupt:  # caught here: typer would turn it into an exit without a word
            print_error(NOTHING_SAVED)
            return INTERRUPTED

    rows = [_parameter(cls, n, row) for n, row in table.items()]
    parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *rows, *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = paragraphs(function.__doc__ or "")
    command.__name__ = name.replace("-", "_")
    app.command(name, cls=Command, epilog=f"Example:  {example}", no_args_is_help=False)(command)


def paragraphs(docstring: str) -> str:
    """A docstring with each paragraph on one line: the terminal breaks lines where it is narrow, not where we did."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n"))


def _parameter(cls: type[Settings], name: str, row: Option) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    if row.positional:
        metavar = f"{name.upper()}..." if row.repeatable else name.upper()
        argument = typer.Argument(help=_escape(row.help), metavar=metavar, show_default=False)
        return _keyword(name, None, Annotated[list[str] | None if row.repeatable else str | None, argument])
    is_flag = row.parser.metavar == "BOOL"
    words, help, metavar = default_words(cls, name), row.help, row.parser.metavar
    if len(metavar) > WIDEST:  # a column as wide would break the words beside it, and itself
        metavar = name.upper()
        help = f"{help} ({', '.join(row.parser.choices)})"
    if is_flag:
        words = {"True": flag.removeprefix("--"), "False": f"no-{flag.removeprefix('--')}"}.get(words, words)
    info = typer.Option(
        *([f"{flag}/--no-{flag.removeprefix('--')}"] if is_flag else [flag]),
        *([row.short] if row.short else []),
        help=_escape(help) + (f" {_dim(words)}" if words else ""),
        rich_help_panel=row.panel,
        show_default=False,
        metavar=None if is_flag else _escape(metavar),
        autocompletion=_completion(row) if row.parser.choices else None,
    )
    kind = bool | None if is_flag else list[str] | None if row.repeatable else str | None
    return _keyword(name, None, Annotated[kind, info])


def _completion(row: Option) -> Callable[[str], list[str]]:
    """What the shell offers for a value: its words; for several with commas between them, the last one."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if row.repeatable else ("", "", incomplete)
        return [before + comma + word for word in row.parser.choices if word.startswith(last)]

    return complete


def _dim(words: str) -> str:
    return rf"[dim]\[default: {_escape(words)}][/dim]"


def _as_typed(message: str, table: Mapping[str, Option], flags: Mapping[str, Any], config: str | None) -> str:
    """A message about a setting, with the setting named as it was typed: ``--rank``, or ``my.yaml: rank``."""
    names = "|".join(re.escape(n.replace("_", "-")) for n, row in table.items() if not row.positional)

    def flag(match: re.Match[str]) -> str:
        return f"{match[1]}--{match[2]}"

    first = re.match(rf"(?:{names})(?=: )", message)
    if first and config is not None and first[0].replace("-", "_") not in flags:
        message = f"{config}: {message}"
    else:
        message = re.sub(rf"^()({names})(?=: )", flag, message)
    return re.sub(rf"\b(beside |with |for )({names})\b", flag, message, count=1)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _resolve(cls: type[S], config: str | None, flags: dict[str, Any]) -> S:
    if config is None:
        return resolve(cls, flags=flags)
    from dlnphase.results.configfile import read_config

    path = Path(config)
    return resolve(cls, config=read_config(path), flags=flags, where=config, base=path.absolute().parent)


def _directory(text: str | None) -> Path | None:
    if text is None:
        return None
    if not text.strip() or "\0" in text:
        raise InputError(f"--out: found {text or 'an empty text'}, expected a directory")
    return Path(text)
