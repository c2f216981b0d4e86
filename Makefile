# Ten words and no secrets: each target is one command that can be typed by hand.
PYTHON ?= python3
DEVICE ?= host
PORT ?= 5655
ABI ?= x86_64
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install bench test lint type benchmark report phone clean lock
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "handset needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

install: $(VENV)/.installed  ## the virtual environment with pinned dependencies

bench: $(VENV)/.installed  ## measure the default networks (MODELS="...", DEVICE=host, ARGS="...")
	@# 4 is "measured but unstable": the verdict says so, and make has not failed; a CI that minds calls handset itself
	$(BIN)/handset bench $(MODELS) --device $(DEVICE) $(ARGS) || test $$? -eq 4

test: $(VENV)/.installed  ## the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed  ## ruff
	$(BIN)/ruff check .

type: $(VENV)/.installed  ## mypy, strict on the leaves
	$(BIN)/mypy

benchmark: $(VENV)/.installed  ## how fast and how right handset itself is, against the runtimes' own loops
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

report: $(VENV)/.installed  ## the page of a run again (RUN=reports/...)
	$(BIN)/handset report $(RUN)

phone: $(VENV)/.installed  ## a test phone on loopback until Ctrl-C, needs root (PORT=5655 ABI=x86_64|arm64)
	$(BIN)/python tests/phone/run.py --port $(PORT) --abi $(ABI) $(ARGS)

lock: $(VENV)/.installed  ## write down the versions that are installed
	$(BIN)/pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//' > requirements.lock

clean:  ## everything that was built; reports stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
