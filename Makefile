# Two commands: `make run` measures, `make test` tests. Both set up all they need on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test lint gallery schema reproductions clean

run: $(VENV)/installed
	$(BIN)/effbench run --seq 1024..65536

test: $(VENV)/installed-for-tests lint
	$(BIN)/python -m pytest --numprocesses logical $(PYTEST_ARGS)

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The README's report, its pictures and its table, in docs/gallery. It goes on where it stopped; a run that is already
# finished is shown as it is: remove results/scaling to measure anew.
gallery: run
	$(BIN)/python docs/gallery/make_gallery.py results/scaling

# The JSON schema that editors use for suites, written from the code that validates them.
schema: $(VENV)/installed
	$(BIN)/python -m effbench.suite_schema > suites/suite.schema.json

# The pages of docs/reproductions, measured anew: about ten minutes each, on a machine that does nothing else.
reproductions: $(VENV)/installed
	EFFBENCH=$(abspath $(BIN)/effbench) docs/reproductions/make.sh

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(INSTALL) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
