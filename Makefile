# `make demo` and `make test` need Python ≥ 3.11 and make; everything else is installed into .venv here.
# Nothing is written outside this directory, pip's own cache excepted.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps
TESTS ?= tests
PYTEST_FLAGS ?= --numprocesses=auto --dist=worksteal --quiet
SOURCES := npuc ir frontends passes backends runtime tools

export HF_HOME := $(CURDIR)/build/huggingface
export HF_HUB_DISABLE_TELEMETRY := 1
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/build/pyright
export PRE_COMMIT_HOME := $(CURDIR)/build/pre-commit
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help install demo demo-model test numbers fuzz lint pyright format typing hooks clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "npuc needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@mkdir -p $(@D) && touch $@

$(STAMPS)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@mkdir -p $(@D) && touch $@ $(STAMPS)/run

install: $(STAMPS)/run ## create .venv with what running needs

demo: $(STAMPS)/run ## compile the demonstration model, run it on the simulated NPU, compare
	@$(BIN)/python -m npuc.tools.demo

demo-model: $(STAMPS)/run ## train the demonstration model again (about ten minutes)
	$(BIN)/python -m npuc.tools.train_demo --output demo/model

test: $(STAMPS)/dev ## run the tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS) $(TESTS)

numbers: $(STAMPS)/dev ## measure the models beside the repository, write docs/numbers.md (five minutes)
	PYTHONPATH=tests/bench:tests/e2e $(BIN)/python tests/bench/measure_models.py

MINUTES ?= 30
fuzz: $(STAMPS)/dev ## random modules through all passes for MINUTES=30; keeps what fails in tests/fuzz/found
	PYTHONPATH=tests/fuzz:tests/unit/passes:tests/unit/backends $(BIN)/python tests/fuzz/campaign.py --minutes $(MINUTES)

lint: $(STAMPS)/dev pyright ## ruff and pyright, as in continuous integration
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

pyright: $(STAMPS)/dev typing
	$(BIN)/pyright

format: $(STAMPS)/dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pyright does not follow setuptools' package-dir in an editable install: show it the import layout.
typing: build/typing/npuc/py.typed ## the import layout as symbolic links, for type checkers

build/typing/npuc/py.typed: Makefile
	@mkdir -p $(@D)
	@ln -sfn $(CURDIR)/npuc/__init__.py $(@D)/__init__.py
	@for folder in $(filter-out npuc,$(SOURCES)); do ln -sfn $(CURDIR)/$$folder $(@D)/$$folder; done
	@touch $@

hooks: $(STAMPS)/dev ## run the linters before each commit
	$(BIN)/pre-commit install

clean: ## remove what make and the tools created, the environment included
	rm -rf build $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
