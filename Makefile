# Few targets, a line of help each: `make` prints them. `make setup` is the first step of all others.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup tools check unit test test-long bench demo clean

help: ## print this help
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: tools $(STAMP) ## install what everything else needs: apt packages where root, and .venv

tools:
	@scripts/install-tools

$(STAMP): pyproject.toml constraints.txt scripts/make-venv scripts/make-s3-server | tools
	@scripts/make-venv "$(PYTHON)" "$(VENV)"
	@scripts/make-s3-server "$(PYTHON)" "$(VENV)/servers/seaweedfs"
	@touch $@

check: setup ## formatting, lint, types and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup ## the tests that need no tools: seconds
	$(PYTEST) tests/unit

test: setup ## all tests but the long ones: minutes
	$(PYTEST) -m "not long"

test-long: setup ## the long tests: large images, memory
	$(PYTEST) -m long --timeout 1800

bench: setup ## measure side by side with what people use instead, and print the table
	$(BIN)/python benchmarks/run.py

demo: setup ## import a real small Linux disk from a real web server, and prove it equal
	@demo/run

clean: ## remove what was built, .venv too
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
