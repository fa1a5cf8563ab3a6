# Set-up, demo, tests. Needs only bash and a Python >= 3.11 with venv; everything is installed into .venv.
#
#   make demo       install, then the freeze ablation on the embedded data
#   make ui         look at it
#   make check test what a change has to pass
#
# PIP_ARGS goes to every pip install, PYTEST_ARGS to pytest, STORE names another tracking store.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
STORE ?= sqlite:///$(CURDIR)/mlflow.db
CAMPAIGN_COUNT ?= 50
UI_PORT ?= 5000

# Entry points of MLproject call `python`: it has to be the one of .venv.
WITH_STORE = PATH="$(CURDIR)/$(BIN):$$PATH" MLFLOW_TRACKING_URI="$(STORE)"

# A shim can exist for a Python that does not, so each candidate is run rather than looked up.
FIND_PYTHON = for candidate in python3 python3.11 python3.12 python3.13; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "$$candidate"; exit 0; \
	  fi; \
	done; \
	echo "error: no Python >= 3.11 with venv was found. Install it, for example with: apt-get install python3 python3-venv." >&2; \
	exit 1

.PHONY: help install test-install check-install bench-install demo test check bench campaign ui clean clean-results

help:
	@sed -n '1,8s/^# \{0,1\}//p' Makefile

.venv/bin/python:
	@python="$$($(FIND_PYTHON))"; echo "$$python -m venv .venv"; "$$python" -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP_INSTALL) -e .
	@touch $@

.venv/.test-installed: .venv/.installed
	$(PIP_INSTALL) -e '.[test]'
	@touch $@

.venv/.check-installed: .venv/.test-installed
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

.venv/.bench-installed: .venv/.installed
	$(PIP_INSTALL) -e '.[bench]'
# Its opencv-python-headless would overwrite the opencv-python of Ultralytics; what else it imports is in the extra.
	$(PIP_INSTALL) --no-deps grad-cam
	@touch $@

.venv/.qat-installed: .venv/.test-installed
	$(PIP_INSTALL) -e '.[qat]'
	@touch $@

install: .venv/.installed
test-install: .venv/.test-installed
check-install: .venv/.check-installed
bench-install: .venv/.bench-installed

demo: install
	$(WITH_STORE) mlflow-yolo doctor --quiet --init
	$(WITH_STORE) mlflow run . -e freeze_ablation --env-manager local -P workers=2
	@echo "See the runs: make ui, then open http://127.0.0.1:$(UI_PORT)"

# What computes and trains runs in one process a core, a file's tests together: they share what is expensive to make. The
# others wait for servers, kill processes and hold deadlines, and have the machine for themselves.
COMPUTING = $(wildcard tests/test_*.py) $(addprefix tests/,attribution benchmarks checkpoints classification compression \
	datasets deployment detection explanation figures models projects registry runtime statistics training variants \
	$(addprefix studies/,freeze thresholds tuning test_driver.py test_measured.py test_progress.py test_study.py) \
	$(addprefix tracking/,autolog blocks events maps stores test_autolog.py test_complaints.py test_ddp.py))

test: test-install
	$(BIN)/python -m pytest -n auto --dist loadfile $(COMPUTING) $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(COMPUTING)) $(PYTEST_ARGS)

check: check-install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: bench-install
# A missed target is no reason to leave out the benchmarks after it.
	shopt -s nullglob; status=0; for file in benchmarks/[a-z]*.py; do \
	  $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || status=1; \
	done; exit $$status

campaign: test-install .venv/.qat-installed
	CAMPAIGN_COUNT=$(CAMPAIGN_COUNT) $(BIN)/python -m pytest -m campaign tests/campaign -s $(PYTEST_ARGS)

ui: install
	$(WITH_STORE) mlflow ui --backend-store-uri "$(STORE)" --host 127.0.0.1 --port $(UI_PORT) --workers 1

# What install, test and check made; results stay.
clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache mlflow_yolo.egg-info
	find mlflow_yolo tests benchmarks projects -name __pycache__ -type d -prune -exec rm -rf {} +

# The runs themselves. Not part of clean: a training takes longer than an installation.
clean-results:
	rm -rf mlflow.db mlflow.db-journal mlruns runs
