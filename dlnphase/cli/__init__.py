"""The command line: words typed in, tables and exit codes out.

Each command parses what was typed, calls the function of its verb, and shows the result. Nothing is computed
here, and nobody else prints.

Enters: the words of a shell, environment variables for colours and width, signals.
Leaves: results on stdout (tables, or one JSON document), everything else on stderr, and an exit code: 0 done, 1
a run that failed, 2 a mistake of the user in one line, 130 stopped by a signal.

Open

- `app.py` for the list of commands, and how an error becomes a line and a code;
- `train.py`, `sweep_gamma.py`, `detect_saddles.py`, `plot.py` for one command each: parse, call, show;
- `options.py` for how flags, help and defaults are read off a settings table;
- `tables.py`, `start_tables.py`, `sweep_tables.py`, `saddle_tables.py` for what a result looks like on the
  terminal;
- `progress.py` and `proof_progress.py` for the live line; `interrupts.py` for Ctrl-C, SIGTERM and a lost
  terminal;
- `console.py` for the two streams.

Keep

- typer and rich are imported here and nowhere else, and print is called nowhere else (tests/test_house.py).
- Modules load torch, scipy and matplotlib inside the body of a command: `--help` waits for none of them
  (tests/test_house.py, tests/test_startup.py).
- A user's mistake is one line that names the option, what was found and what is expected (tests/test_cli.py,
  tests/test_words_of_options.py); what a terminal shows is checked in tests/test_tables.py.
- A flag is declared in a settings table, never in a command file; what is no setting (`--out`, `--quiet`) is.
"""
