# Every target sets itself up: a virtual environment in .venv, pinned dependencies, a build of the package.

PYTHON ?= python3
VENV ?= .venv
FASTSCHED_CUDA ?= AUTO
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
SOURCES := CMakeLists.txt pyproject.toml $(wildcard csrc/*/*)

FORCE:
.PHONY: FORCE build demo test test-slow lint format bench report clean help
.DELETE_ON_ERROR:

help:
	@echo "make demo       train on digits with torch's scheduler and with fastsched's, compare, draw a picture"
	@echo "make test       the tests (GPU tests are skipped without a GPU; FASTSCHED_REQUIRE_CUDA=1 forbids that)"
	@echo "make test-slow  the random tests with twenty times as many examples"
	@echo "make lint       ruff, mypy, clang-format, codespell"
	@echo "make format     rewrite the sources in the project's format"
	@echo "make bench      step cost against torch, as ratios, into benchmarks/results"
	@echo "make report     the README's table, from benchmarks/results"
	@echo "FASTSCHED_CUDA=AUTO|ON|OFF decides whether the CUDA operators are built; AUTO: if nvcc is there"

$(VENV)/ready: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch numpy cmake ninja pybind11 scikit-build-core
	touch $@

# Remembers how the last build was configured, so that another FASTSCHED_CUDA builds anew.
$(VENV)/configuration: $(VENV)/ready FORCE
	@echo "$(FASTSCHED_CUDA)" | cmp -s - $@ || echo "$(FASTSCHED_CUDA)" > $@

# Editable: Python sources are used in place, compiled ones are rebuilt when they change.
$(VENV)/built: $(VENV)/configuration $(SOURCES)
	FASTSCHED_CUDA=$(FASTSCHED_CUDA) $(INSTALL) --no-build-isolation --editable '.[demo,test]'
	touch $@

$(VENV)/linters: constraints.txt pyproject.toml $(VENV)/ready
	$(INSTALL) clang-format codespell mypy pre-commit ruff
	touch $@

build: $(VENV)/built

demo: build
	$(BIN)/python examples/digits_plateau.py

test: build
	$(BIN)/python -m pytest

test-slow: build
	FASTSCHED_HYPOTHESIS=slow $(BIN)/python -m pytest -m hypothesis --timeout 1800

lint: build $(VENV)/linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')
	$(BIN)/codespell csrc fastsched tests benchmarks docs examples README.md CHANGELOG.md CONTRIBUTING.md

format: $(VENV)/linters
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

bench: build
	$(BIN)/python -m pytest benchmarks --quiet --benchmark-json=build/benchmarks.json
	$(BIN)/python benchmarks/report.py record build/benchmarks.json

report:
	$(BIN)/python benchmarks/report.py readme

clean:
	rm -rf $(VENV) build dist demo-output
