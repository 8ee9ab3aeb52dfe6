"""Completion in the shell: bash really completes, zsh and fish get what they ask for, nothing heavy is imported."""

import os
import shutil
import subprocess
import sys

import pytest


def _ask(code_or_module, **environment):
    command = [sys.executable, *code_or_module]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dlnphase sw", {"sweep-gamma"}),
        ("dlnphase train --re", {"--record", "--representation", "--resume"}),
        ("dlnphase --inst", {"--install-completion"}),
    ],
)
def test_bash_completes_commands_and_options(line, words, tmp_path):
    (tmp_path / "dlnphase").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dlnphase "$@"\n')
    (tmp_path / "dlnphase").chmod(0o755)
    script = (
        'eval "$(_DLNPHASE_COMPLETE=source_bash dlnphase)"\n'
        "complete -p dlnphase > /dev/null || exit 3\n"  # the function is bound to the command
        f"COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}\n"
        '_dlnphase_completion dlnphase; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == words


def test_zsh_and_fish_get_their_scripts_and_answers():
    for shell, name in (("zsh", "#compdef dlnphase"), ("fish", "complete --command dlnphase")):
        assert name in _ask(["-m", "dlnphase"], _DLNPHASE_COMPLETE=f"source_{shell}").stdout
    asked = {"_TYPER_COMPLETE_ARGS": "dlnphase detect-saddles --min"}
    assert "--min-prominence" in _ask(["-m", "dlnphase"], _DLNPHASE_COMPLETE="complete_zsh", **asked).stdout
    asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    assert "--min-prominence" in _ask(["-m", "dlnphase"], _DLNPHASE_COMPLETE="complete_fish", **asked).stdout


def test_completion_imports_nothing_heavy():
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'numpy', 'yaml'}\n"
        "atexit.register(lambda: print('heavy:', heavy & set(sys.modules)))\n"
        "from dlnphase.cli.app import main\nmain()"
    )
    done = _ask(["-c", code], _DLNPHASE_COMPLETE="complete_bash", COMP_WORDS="dlnphase train --wi", COMP_CWORD="2")
    assert done.stdout.split("\n")[:2] == ["--width", "heavy: set()"], done.stdout + done.stderr
