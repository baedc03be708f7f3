# Two commands matter: `make quickstart` and `make test`. Each makes .venv and installs by itself.
PYTHON ?= python3
VENV ?= .venv
# Extra options for pip, such as a CPU wheel index for torch (see README).
PIP_FLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Dependency groups need pip 25.1; the one that venv brings may be older.
UPGRADE_PIP = $(PIP) install -q -c constraints.txt 'pip>=25.1'
RUNTIME := engine,embed,documents,ui,server,cpu
INPUTS := pyproject.toml constraints.txt
HEAVY_BENCHMARKS := concurrent_streams engine_vs_llama_cpp gpu_engine ingest_throughput knowledge_scale long_context prefix_reuse server_load
LIGHT_BENCHMARKS := $(filter-out $(HEAVY_BENCHMARKS),$(basename $(notdir $(wildcard benchmarks/*.py))))
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help quickstart install dev check format test test-slow screenshots docs bench clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "glm-rag needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(BIN)/python
	@echo "Installing glm-rag into $(VENV) (a few minutes the first time)"
	$(UPGRADE_PIP)
	$(PIP) install -q $(PIP_FLAGS) -c constraints.txt -e '.[$(RUNTIME)]'
	@touch $@

$(VENV)/.installed-dev: $(INPUTS) | $(BIN)/python
	@echo "Installing glm-rag with its development tools into $(VENV)"
	$(UPGRADE_PIP)
	$(PIP) install -q $(PIP_FLAGS) -c constraints.txt -e '.[all]' --group dev
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## install glm-rag into .venv
dev: $(VENV)/.installed-dev ## install with development tools

quickstart: $(VENV)/.installed ## install, fetch a small real model, answer a question with its source
	$(BIN)/glm-rag quickstart

test: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed-dev ## run the tests (under 10 minutes on two cores)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(VENV)/.installed-dev ## fault, load and browser tests
	$(BIN)/pytest -m slow

check: $(VENV)/.installed-dev ## lint, formatting, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: $(VENV)/.installed-dev ## pictures of every page, into screenshots/ (needs Chromium)
	$(BIN)/python tests/ui/screenshots.py screenshots

docs: $(VENV)/.installed-dev ## write docs/cli.md anew from the commands
	$(BIN)/python -m typer glm_rag.cli.main utils docs --name glm-rag --title Commands --output docs/cli.md

bench: $(VENV)/.installed-dev ## run the benchmarks but the largest; results go to benchmarks/results
	@echo "Running $(LIGHT_BENCHMARKS), two hours or so on two cores."
	@echo "Left out: $(HEAVY_BENCHMARKS). They need 4 GB and more and a quiet machine, or a GPU: run them one by one."
	for name in $(LIGHT_BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean: ## remove caches; the venv and your data stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
