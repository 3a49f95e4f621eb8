# Every target but help runs `setup` first; it does nothing when nothing is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-clean dashboard dashboard-clean test unit faults lint bench lock
BIN := .venv/bin
PYTHON_CODE := flows tasks deployments infra tests

# No server, profile or key of the caller's may leak into a test or the demo.
unexport PREFECT_API_URL PREFECT_API_KEY PREFECT_PROFILE PREFECT_SERVER_API_AUTH_STRING PREFECT_API_AUTH_STRING
unexport VMBORG_CONFIG PYTHONPATH PYTEST_ADDOPTS
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_PROFILES_PATH := /dev/null
export PYTHONUNBUFFERED := 1

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-15s %s\n", $$1, $$2}'

setup:  ## Install what is missing: Debian packages, .venv with the locked packages
	@PYTHON='$(PYTHON)' deployments/setup.sh

demo: setup  ## Back up a running guest twice, lose it, restore it, boot it
	@$(BIN)/python -m tests.demo

demo-clean: setup  ## Remove what the demo made
	@$(BIN)/python -m tests.demo --clean

dashboard: setup  ## Server, worker and two VMs with a schedule, to look at and click; Ctrl-C ends it
	@env --default-signal $(BIN)/python -m tests.dashboard

dashboard-clean: setup  ## Remove what a dashboard left that was killed
	@$(BIN)/python -m tests.dashboard --clean

test: unit  ## All tests: unit, then those with real daemons and guests
	$(BIN)/pytest -v --durations=10 -n 2 --dist loadfile tests/integration tests/e2e

unit: setup  ## The tests that need no daemon (seconds)
	$(BIN)/pytest -n 2 tests/unit

faults: setup  ## Inject every fault of docs/faults.md for real and print the table
	$(BIN)/pytest -n 2 --dist loadfile -q tests/faults

lint: setup  ## ruff, pyright, import-linter, shellcheck
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/pyright
	$(BIN)/lint-imports
	shellcheck .ci/run $$(find deployments tests -name '*.sh') tests/guests/rootfs/[!i]*

bench: setup  ## Measure against plain virsh and borg; the table of docs/performance.md
	@$(BIN)/python -m tests.bench

lock: setup  ## Resolve the dependencies anew into requirements*.lock
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras \
	  --no-header -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras \
	  --no-header -c requirements.lock --group dev -o requirements-dev.lock pyproject.toml
	@! grep -nE '://|--(index|extra-index|find-links)' requirements.lock requirements-dev.lock
