# The same commands that people and CI run. `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
CORES ?= all
CONFIG ?= config/default.yaml
# Where torch comes from, e.g. the CPU or CUDA index that pytorch.org names; see the README.
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help demo test check fix bench faults clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile

demo: $(VENV)/installed  ## install, run the workflow on CONFIG (config/default.yaml), print the table
	snakemake --cores $(CORES) --configfile $(CONFIG) --rerun-incomplete --scheduler greedy
	vista summary $(CONFIG)

test: check  ## install what tests need and run everything that CI runs

check: $(VENV)/installed-dev  ## lint, format, types, workflow, all tests
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint
	python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

fix: $(VENV)/installed-dev  ## format the code and mend what the linter can
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

bench: $(VENV)/installed  ## our stages side by side with the usual way; benchmarks/RESULTS.md
	python -m benchmarks

faults: $(VENV)/installed-dev  ## break a small run in a hundred ways; benchmarks/faults.json
	python -m tests.faults

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/installed: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
