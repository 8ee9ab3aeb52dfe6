# Everything a newcomer or a CI run needs. Each target sets up what it uses; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread per process: these matrices are small, and the test run has a process per core.
ONE_THREAD := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench smoke gallery dist coverage gauntlet

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV)/, once: PyTorch, NumPy, SciPy, Matplotlib, and what tests, pages and checks need ..."
	$(PYTHON) -m venv $(VENV)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "Installed: $(BIN)/dlnphase"

demo: $(STAMP)  ## set up, run the main job on its defaults, show its tables
	$(BIN)/dlnphase sweep-gamma --out runs/demo --overwrite

smoke: $(STAMP)  ## the same in seconds, small
	$(BIN)/dlnphase sweep-gamma --gammas 0.7,1.5 --widths 1e4,1e6 --dim 3 --seeds 2 --out runs/smoke --overwrite
	$(BIN)/dlnphase train --task factorization --dim 4 --rank 2 --depth 3 --out runs/smoke-train --overwrite

test: $(STAMP)  ## all tests, one process per core
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal

coverage: $(STAMP)  ## all tests, and the share of the package they run (at least 95 %)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal --cov

lint: $(STAMP)  ## style of every Python file, and the types of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet dlnphase tests gauntlet tools bench
	$(BIN)/mypy

docs: $(STAMP)  ## the pages, into site/
	$(ONE_THREAD) $(BIN)/python tools/reference.py
	$(ONE_THREAD) $(BIN)/python tools/sample.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The pages are in site/: open site/index.html"

bench: $(STAMP)  ## one table of the standing figures
	$(ONE_THREAD) $(BIN)/python -m bench

COUNT ?= 200
gauntlet: $(STAMP)  ## random networks against an independent reference: COUNT=2000, SEED=1, ARGS="--hours 8"
	$(ONE_THREAD) $(BIN)/python -m gauntlet --count $(COUNT) $(if $(SEED),--seed $(SEED)) $(ARGS)

gallery: $(STAMP)  ## every figure of the documentation
	$(ONE_THREAD) $(BIN)/python gallery/make.py

dist: $(STAMP)  ## a wheel and an sdist, into dist/
	$(BIN)/python -m build --no-isolation
