# `make` alone lists the targets. PYTHON names the interpreter that .venv is made with.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

# Python keeps compiled files, also where the shell says not to: tests start many processes, and each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-slow check docs speed notebooks clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED)  ## run the main job on the embedded default; writes results/demo/report.html
	$(BIN)/kd-env demo --out results/demo

# Two workers of one thread each: more threads than cores make small models slower, not faster.
test test-long test-slow notebooks: export OMP_NUM_THREADS := 1
test test-long test-slow notebooks: export HF_HUB_OFFLINE := 1

test: $(INSTALLED)  ## run the fast tests, offline
	$(BIN)/pytest -n 2 --dist loadfile

test-long: $(INSTALLED)  ## run the tests of half a second or more, offline
	$(BIN)/pytest -m "long and not slow and not browser" -n 2 --dist loadfile

test-slow: $(INSTALLED)  ## run the slow tests, and those that need Chromium
	$(BIN)/pytest -m "slow or browser" -n 2 --dist loadfile

check: $(INSTALLED)  ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy kd_env agents baselines speed

docs: export HF_HUB_OFFLINE := 1

docs: $(INSTALLED)  ## build the site into docs/_build/html, offline; warnings are errors
	$(BIN)/python -m sphinx -b html -j auto -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

speed: $(INSTALLED)  ## print the side-by-side speed table
	$(BIN)/python -m speed

EXECUTED := $(addprefix execute-,$(NOTEBOOKS))
.PHONY: $(EXECUTED)

notebooks: $(EXECUTED)  ## execute every notebook; --jobs 2 for two at a time
	@$(if $(NOTEBOOKS),,echo "notebooks/ holds no notebooks")

$(EXECUTED): execute-%: $(INSTALLED)
	@echo "executing $*"
	@$(BIN)/python -m jupyter execute --timeout=300 --NbClientApp.log_level=WARN "$*" > /dev/null

clean:  ## remove caches and build outputs (keeps .venv and results)
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache docs/_build docs/api/generated
	find . \( -path ./.venv -o -path ./.git -o -path ./results \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing kd-env and its tools into .venv (minutes the first time)"
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
		{ echo "error: '$(PYTHON)' is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
