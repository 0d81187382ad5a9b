# make book    build the book into _build/html          make test    run every test
# make help    the other targets
#
# Settings, as in `make book PYTHON=python3.12`:
PYTHON ?= python3   # any Python from 3.10 to 3.13; another one that fits is looked for beside it
VENV ?= .venv       # where everything is installed
OUT ?= .            # the book goes to OUT/_build: with VENV elsewhere too, the source is only read
WORKERS ?= 2        # processes that share the tests

override PYTHON := $(strip $(PYTHON))
override VENV := $(strip $(VENV))
override OUT := $(strip $(OUT))
override WORKERS := $(strip $(WORKERS))
absolute = $(if $(filter /%,$(1)),$(1),$(CURDIR)/$(1))
BUILD := $(OUT)/_build
BIN := $(VENV)/bin
RUN := "$(BIN)/python"

# Compiled kernels are cached by the text of the whole package: Numba's own cache sees a change in
# the file of a kernel, but not in a kernel of another file that it calls.
KERNELS := $(shell cat boardlaw/*.py boardlaw/*/*.py | cksum | cut -d ' ' -f 1)
CACHE := $(call absolute,$(BUILD))/cache
export NUMBA_CACHE_DIR := $(CACHE)/kernels-$(KERNELS)
# Nothing of the user's own settings gets in, nothing is written into the user's home.
export IPYTHONDIR := $(CACHE)/ipython
export MPLCONFIGDIR := $(CACHE)/matplotlib
export JUPYTER_PREFER_ENV_PATH := 1
unexport PYTHONPATH MPLBACKEND
# What chapters and tests train or download by default: made anew each time.
book: export BOARDLAW_OUTPUT := $(call absolute,$(BUILD))/output
test coverage notebooks: export BOARDLAW_OUTPUT := $(call absolute,$(BUILD))/test-output
# The tests' processes share the cores: each computes on one.
test coverage notebooks soak: export OMP_NUM_THREADS := 1

NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=600 \
	--nbval-sanitize-with=tests/sanitize.cfg
PYTEST := $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# The longest begin, so that none of them is left to one process at the end.
LONG := tests/test_sweep.py tests/test_crashes.py

.PHONY: help install book test lint coverage notebooks picture bench soak audit gpu-check \
	gpu-replica clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

install: $(VENV)/installed ## the environment: .venv with exact versions, and the package

$(VENV)/installed: requirements.txt constraints.txt pyproject.toml
	@$(RUN) -m pip --version >/dev/null 2>&1 || \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3.10; do \
	    $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && \
	    echo "Making $(VENV) with $$($$python --version)" && exec $$python -m venv "$(VENV)"; \
	done; true
	@test -x "$(BIN)/python" || { echo 'No Python from 3.10 to 3.13 was found:' \
	    'install one, or name it as in `make book PYTHON=/usr/bin/python3.11`.'; exit 1; }
	$(RUN) -m pip install --disable-pip-version-check -r requirements.txt -c constraints.txt
	$(RUN) -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch "$@"

book: install ## the book: every chapter is executed, a warning is an error
	@mkdir -p "$(IPYTHONDIR)"
	@rm -rf "$(BUILD)/html" "$(BUILD)/.doctrees" "$(BUILD)/jupyter_execute" "$(BUILD)/output"
	"$(BIN)/jupyter-book" build -W -n --keep-going --path-output "$(OUT)" .
	$(RUN) tools/check_book.py "$(BUILD)"

test: install ## the tests, and every chapter again with nbval
	@mkdir -p "$(IPYTHONDIR)"
	@rm -rf "$(BUILD)/test-output"
	$(RUN) tools/notebooks.py check
	$(PYTEST) $(NBVAL) $(LONG) book tests

lint: install ## ruff
	$(RUN) -m ruff check .

coverage: install ## which lines of the package the tests reach
	@mkdir -p "$(IPYTHONDIR)"
	@rm -rf "$(BUILD)/test-output"
	$(PYTEST) --cov=boardlaw --cov-report=term-missing:skip-covered $(LONG) tests

notebooks: install ## run all chapters, and store the outputs that the tests compare
	@mkdir -p "$(IPYTHONDIR)"
	$(RUN) tools/notebooks.py run

picture: install ## the README's picture, from the published curves
	$(RUN) tools/picture.py book/assets/frontiers.svg

bench: install ## ours beside the peers, in a quarter of an hour; BENCH=--quick for a first look
	$(RUN) benchmarks/bench.py --peers "$(BUILD)/bench/venv" $(BENCH)

soak: install ## kills, damage, crowds and memory at length, two hours; SOAK="--kills 20" for less
	$(RUN) tests/soak.py --report "$(BUILD)/soak/report.json" $(SOAK)

audit: ## known vulnerabilities in the pinned versions, by pip-audit; needs the network
	$(PYTHON) -m venv "$(BUILD)/audit" && "$(BUILD)/audit/bin/pip" install -q pip-audit
	"$(BUILD)/audit/bin/pip-audit" --disable-pip --no-deps -r requirements.txt -r constraints.txt

# On a machine with a GPU, PYTHON is used as it is; what it lacks comes from a folder WHEELS.
GPU_RUN = $(if $(WHEELS),$(PYTHON) -m pip install -q --no-index --no-deps --upgrade \
	--target "$(BUILD)/site" "$(WHEELS)"/*.whl &&) \
	PYTHONPATH="$(call absolute,$(BUILD))/site:$(CURDIR)" $(PYTHON)

gpu-check: ## on a machine with a GPU: all that needs one, in eight minutes
	$(GPU_RUN) benchmarks/gpu_check.py $(REPORT)

# A visit to a GPU that is at hand for minutes: CONTRIBUTING.md has the order of calls.
BOARDS ?= 6,7,8
STATE ?= output/state
TO ?= $(STATE)
MINUTES ?= 8

gpu-replica: ## on a machine with a GPU: eight minutes of the replica, from STATE to TO, for BOARDS
	export BOARDLAW_OUTPUT="$(call absolute,$(BUILD))/visit"; $(GPU_RUN) -m boardlaw visit --boards $(BOARDS) \
	    --runs 6 --minutes $(MINUTES) --device cuda --state "$(STATE)" --to "$(TO)" $(VISIT)

clean: ## remove what was built; .venv stays
	rm -rf "$(BUILD)"
