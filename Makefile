# Every target makes the environment it needs. Type "make help" for the list.

# A new enough Python: python3.11 where it runs, or else python3.
PYTHON ?= $(shell python3.11 -c "" 2>/dev/null && echo python3.11 || echo python3)
PYTEST_ARGS ?= -n auto --dist loadgroup
# Tests that "make test" leaves to "make test-slow"; pyproject.toml says what they are.
SLOW := slow or process or cluster or docs or packaging

VENV := .venv
VENV_FLOOR := .venv-floor
BIN := $(VENV)/bin
PIP_ARGS := install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
# Two installs into one environment at the same time would spoil it.
.NOTPARALLEL:
# A stamp half made is no stamp.
.DELETE_ON_ERROR:

.PHONY: help demo test test-slow test-all test-floor coverage lint format docs build clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.stamp-test ## Run the demo
	$(BIN)/python examples/demo.py

# One thread per process: the tests already run one process per core.
test test-slow test-all coverage test-floor: export OMP_NUM_THREADS := 1

test: $(VENV)/.stamp-test ## Run the quick tests, under five minutes
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not ($(SLOW))"

test-slow: $(VENV)/.stamp-test ## Run the other tests
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "$(SLOW)"

test-all: $(VENV)/.stamp-test ## Run all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-floor: $(VENV_FLOOR)/.stamp-test ## Run all tests with the oldest dependencies
	$(VENV_FLOOR)/bin/python -m pytest $(PYTEST_ARGS)

coverage: $(VENV)/.stamp-test ## Print the lines of sknas that no test runs
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov=sknas --cov-report=term-missing:skip-covered

lint: $(VENV)/.stamp-dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy sknas

format: $(VENV)/.stamp-dev ## Repair style where that can be done by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-docs ## Build the documentation in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Not isolated, so that the pinned back end builds.
build: $(VENV)/.stamp-test ## Build the sdist and the wheel in dist
	$(BIN)/python -m build --no-isolation

clean: ## Remove what was built, and caches; the environments stay
	rm -rf build dist docs/_build docs/gallery docs/generated docs/api/generated
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)*" -prune -exec rm -rf {} +

# A stamp says that an extra is installed. It is made anew when what is asked for
# changes. One environment holds all the extras, so each has its own stamp.
$(VENV)/.stamp-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip $(PIP_ARGS) -c constraints.txt -e ".[$*]"
	@touch $@

$(VENV_FLOOR)/.stamp-test: pyproject.toml constraints-floor.txt | $(VENV_FLOOR)/bin/python
	$(VENV_FLOOR)/bin/python -m pip $(PIP_ARGS) -c constraints-floor.txt -e ".[test]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV_FLOOR)/bin/python:
	$(PYTHON) -m venv $(VENV_FLOOR)
