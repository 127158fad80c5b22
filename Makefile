# PYTHON: any Python 3.11 or newer. PIP_ARGS: extra arguments for pip (an index of CPU-only torch builds, say).
PYTHON ?= python3
PIP_ARGS ?=
# How many processes share the quick tests: one more than there are cores, since some wait for
# servers; 0 runs them one after the other in one.
TEST_PROCESSES ?= 3
BIN := .venv/bin
PACKAGES := api worker keeper jobstore atmc_core atmc_reader atmc_spec atmc_client launcher sandbox tuning benchmarks examples requirements generators tests docs/hooks.py

.PHONY: setup demo serve test test-slow lint format generate docs lock audit sbom clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt requirements/all.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo 'Installing into .venv what constraints.txt names: a few minutes, once. pip says nothing meanwhile.'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --require-hashes --no-deps -r requirements/all.txt
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --no-build-isolation -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m examples.demo

serve: setup
	@exec $(BIN)/atmc serve

test: setup
	@echo 'Running the quick tests in $(TEST_PROCESSES) processes: a quarter of an hour on two cores.'
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal -m 'not slow'

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker/tls.yml
	$(BIN)/hadolint docker/api.Dockerfile docker/worker.Dockerfile
	$(BIN)/python -m tests.launcher.kubernetes

format: setup
	$(BIN)/ruff check --fix $(PACKAGES)
	$(BIN)/ruff format $(PACKAGES)

# What is made from something else and kept: the waiting client from asyncio's, the client's types from the
# API's document and the report's schema. A test says when it is out of date.
generate: setup
	$(BIN)/python -m generators

# docs/ as a site, in build/site: a warning is an error. Its makers advertise a successor at each run.
docs: setup
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --quiet

# The hashes of what constraints.txt pins, after it has changed; asks the index.
lock: setup
	$(BIN)/python -m requirements

# Advisories on what is pinned. AUDIT_ARGS=--fail: a finding, or a pin that could not be asked for, is an error.
audit: setup
	$(BIN)/python -m requirements.audit $(AUDIT_ARGS)

# What is installed in .venv, with licences: CycloneDX, held to its schema.
sbom: setup
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --validate --of JSON -o sbom.json $(BIN)/python

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
