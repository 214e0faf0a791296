# Two commands: `make run` measures, `make test` tests. Both set up all they need on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test lint schema clean

run: $(VENV)/installed
	$(BIN)/effbench run --seq 1024..65536

test: $(VENV)/installed-for-tests lint
	$(BIN)/python -m pytest --numprocesses logical $(PYTEST_ARGS)

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The JSON schema that editors use for suites, written from the code that validates them.
schema: $(VENV)/installed
	$(BIN)/python -m effbench.suite_schema > suites/suite.schema.json

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(INSTALL) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
