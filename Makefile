# `make help` lists the targets. All of them may be stopped at any time and started again.

# A Python 3.11 to make .venv with; found before .venv comes first on PATH.
PYTHON := $(or $(PYTHON),$(shell command -v python3.11),python3)

# Snakemake starts the scripts of rules with the `python` of PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

CORES ?= all
GPUS ?= 1
ARGS ?=
KEY ?= .lumbarflow/pseudonym.key
RESULTS ?= results
ARCHIVE ?= archive
CONFIRM ?=

TESTS := $(wildcard tests/unit tests/workflow tests/integration)

.DEFAULT_GOAL := help
.PHONY: help setup demo key test bench clean clean-models clean-spare clean-archive

help:
	@echo "make demo     set up, then run the workflow on the synthetic cohort: results/report/index.html"
	@echo "make test     set up, then run all checks and tests, the quick ones first"
	@echo "make key      make the secret key of the pseudonyms (KEY=/path/to/file); never over another"
	@echo "make setup    only make .venv with the pinned packages (requirements/pins.txt)"
	@echo "make bench    run the benchmarks and write benchmarks/RESULTS.md (QUICK=1: a minute each)"
	@echo "make clean    delete the results; these four say first what and how much, and ask for a word:"
	@echo "make clean-models    only the trained networks"
	@echo "make clean-spare     only what no step needs again (checkpoints of finished trainings and such)"
	@echo "make clean-archive   the synthetic films of the embedded archive"
	@echo
	@echo "make demo takes CORES=4, GPUS=0 and ARGS='other options of snakemake'."
	@echo "make clean and its like take RESULTS=results-my-clinic."
	@echo "PYTHON=/path/to/python3.11 chooses the Python that .venv is made with."

setup:
	@"$(PYTHON)" tools/bootstrap.py

demo: setup
	snakemake --cores $(CORES) --resources gpu=$(GPUS) $(ARGS)

key: setup
	@PYTHONPATH=workflow/scripts python -m lumbarflow.deidentify.pseudonyms "$(KEY)"

test: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
	python -m pytest -p tools.test_groups $(TESTS) $(ARGS)

bench: setup
	python tools/bench.py $(if $(QUICK),--quick)

clean clean-models clean-spare:
	@"$(PYTHON)" tools/clean.py $@ --folder "$(RESULTS)" --confirm "$(CONFIRM)"

clean-archive:
	@"$(PYTHON)" tools/clean.py $@ --folder "$(ARCHIVE)" --confirm "$(CONFIRM)"
