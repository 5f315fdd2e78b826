# make quickstart   from a clean clone to a small distilled student that can be served, on MovieLens-100K
# make test         lint, types and every test that isn't slow
# make test-slow    the slow tests
# make coverage     the tests of `make test`, with the share of lines that they run (half as long again)
# make bench        the benchmarks that need neither a download nor another library; docs/benchmarks.md has the rest
#
# Each of them installs what it needs into $(VENV) first, once.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
RECIPE ?= counts
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast test-slow coverage lint format typecheck bench clean

help:
	@sed -n 's/^# //p' Makefile

install: $(INSTALLED)

# PyTorch comes first and without the constraints, so that whatever build of it the machine offers is taken.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v < (3, 14) else \
	  f"deshi needs Python 3.10 to 3.13, but $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

quickstart: $(INSTALLED)
	$(BIN)/deshi run data=ml-100k experiment=ml-100k recipe=$(RECIPE) 'sizes=[32]'

test: lint typecheck test-fast

# One thread a process: the tests are small, and $(JOBS) processes share the cores.
test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m 'not slow'

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m 'not slow' --cov=deshi --cov-report=term:skip-covered

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/prepare_scale.py
	$(BIN)/python benchmarks/loss_cost.py
	$(BIN)/python benchmarks/evaluate_speed.py

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
