# Everything a newcomer needs: `make demo`, `make test`. Each creates .venv on first use.
PYTHON ?= python3
# Processes that share the tests; each takes some 2 GiB.
JOBS ?= 2
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --max-worker-restart 0
# Tests of whole programs and trainings.
WHOLE := tests/benchmarks tests/cli tests/demo tests/docker tests/docs tests/examples tests/integration

.PHONY: setup demo test test-fast lint format bench docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'lightning-kd needs Python >= 3.11: make PYTHON=python3.11 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --group dev --editable '.[all]'
	touch $(READY)

demo: $(READY)
	$(BIN)/lightning-kd demo

# Three runs, so that no process loads every runtime and lives through thousands of tests: such processes were seen to end
# without a word. One that ends ends the run, with the name of its test.
test: $(READY)
	$(PYTEST) tests/exporters exporters
	$(PYTEST) $(WHOLE)
	$(PYTEST) tests lightning_kd --ignore=tests/exporters $(WHOLE:%=--ignore=%)

test-fast: $(READY)
	$(PYTEST) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script --quick --json || exit 1; done

docs: $(READY)
	$(BIN)/python benchmarks/_document.py

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache lightning_logs
