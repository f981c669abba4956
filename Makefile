# The common commands. Nothing but Python 3.11 or later and make is needed.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH_VENV  := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
PYTEST := $(BIN)/pytest -p no:cacheprovider
DUEL   := .venv-duel
LOCK   := uv pip compile --universal --generate-hashes --no-header --no-annotate -q

ifdef CI
export NO_COLOR := 1
endif

.PHONY: help demo test fast test-all check bench chaos duel simulate mutants secrets lock clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY) ## Book an appointment, kill the worker in the middle of the call, and show the outcome
	@$(BIN)/connectors demo

# What fails among four at a time is tried once more by itself: on a busy machine time is what fails first.
test: $(READY) ## Run all tests, on a private RabbitMQ, OpenBao and PostgreSQL
	@$(BIN)/pytest -n 4 --dist loadgroup -m "not registry" || { \
		printf '\nOnce more, one at a time, what failed:\n' && \
		$(BIN)/pytest --last-failed --last-failed-no-failures none -m "not registry"; }

fast: $(READY) ## Run the tests that need no server or process
	@$(PYTEST) -m "not integration and not faults and not simulation and not registry"

test-all: $(READY) ## Run the tests that need a package registry: the wheel in a clean environment
	@$(PYTEST) -m registry || [ $$? -eq 5 ]

check: $(READY) ## Format, lint, types, layers, words, generated files and pages
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(PYTEST) -q -m "not integration" tests/schemas/test_json_schema.py tests/packaging/test_compose.py tests/test_docs.py tests/test_words.py

bench: $(READY) $(BENCH_READY) ## Compare the worker with its peers: QUICK=1 (3 minutes), SVG=folder
	@$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(SVG),--svg $(SVG))

chaos: $(READY) ## Kill at random, and count what is lost or doubled: JOBS=1000 KILLS=10
	@$(BIN)/python -m tests.faults.chaos --jobs $(or $(JOBS),1000) --kills $(or $(KILLS),10)

duel: $(READY) $(DUEL)/.ready ## Book through ours and its peers while answers are lost and a worker is killed: SEED=1
	@$(BIN)/python -m tests.duel $(if $(SEED),--seed $(SEED))

simulate: $(READY) ## Run 20,000 simulated schedules of the core, and a tenth with a broker: SCHEDULES=20000 SEED=1
	@$(BIN)/python -m tests.simulation --schedules $(or $(SCHEDULES),20000) --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.simulation --broker --schedules $$(( $(or $(SCHEDULES),20000) / 10 )) --seed $(or $(SEED),1)

mutants: $(READY) ## Take each guard out of the core, and see the simulation find it: SCHEDULES=20000 SEED=1
	@$(BIN)/python -m tests.simulation --mutants --schedules $(or $(SCHEDULES),20000) --seed $(or $(SEED),1)

secrets: ## Create the passwords and keys of compose.yaml, once
	@$(PYTHON) worker/ops/make_secrets.py

lock: ## Lock the dependencies again, with hashes (needs uv)
	@$(LOCK) pyproject.toml --extra worker -o worker/requirements.txt
	@$(LOCK) pyproject.toml --extra worker --group test -o tests/requirements.txt
	@$(LOCK) --group duel -o tests/duel/requirements.txt
	@$(LOCK) tests/bench/requirements.in -o tests/bench/requirements.txt
	@echo hatchling | $(LOCK) - -c tests/requirements.txt -o worker/ops/build-requirements.txt

clean: ## Remove the environment and build results
	@rm -rf $(VENV) $(DUEL) $(BENCH_VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Created again when the lock or the entry points change; an interrupted set-up leaves no stamp, and is resumed.
$(READY): tests/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or later is needed, and $(PYTHON) is older; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@rm -f $(READY)
	@if command -v uv >/dev/null 2>&1; then \
		echo "Setting up $(VENV) with uv …" && \
		uv venv -q --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && \
		uv pip install -q --python $(BIN)/python --require-hashes -r tests/requirements.txt && \
		uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
		{ $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "Python's venv is not complete here; run: apt install python3-venv" >&2; exit 1; }; } && \
		echo "Setting up $(VENV) with pip (a minute or two) …" && \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.txt && \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $(READY)

# The peers' packages never enter the worker's environment.
$(DUEL)/.ready: tests/duel/requirements.txt
	@echo "Setting up $(DUEL) …"
	@$(PYTHON) -m venv --clear $(DUEL)
	@$(DUEL)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/duel/requirements.txt
	@touch $@

# The peers of `make bench`, apart from the product's environment.
$(BENCH_READY): tests/bench/requirements.txt
	@rm -f $(BENCH_READY)
	@echo "Setting up $(BENCH_VENV) …"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv -q --allow-existing --python "$$(command -v $(PYTHON))" $(BENCH_VENV) && \
		uv pip install -q --python $(BENCH_VENV)/bin/python --require-hashes -r tests/bench/requirements.txt; \
	else \
		$(PYTHON) -m venv $(BENCH_VENV) && \
		$(BENCH_VENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes \
			-r tests/bench/requirements.txt; \
	fi
	@touch $(BENCH_READY)
