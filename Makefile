# Everything from a fresh machine with Python 3.11+, make and git. `make help` lists it.
#
#   make test PYTHON=python3.12        the interpreter that makes a new environment
#   make test VENV="$VIRTUAL_ENV"      an environment of your own
#   make test ARGS="-k store -x"       further arguments of the command
#   make test JOBS=0                   in one process, a file after the other
#   make test CONSTRAINTS=             without the pinned versions

.DEFAULT_GOAL := help
.PHONY: demo test check bench ordeal clean help environment

VENV        ?= .venv
PYTHON      ?=
CONSTRAINTS ?= constraints.txt
ARGS        ?=
JOBS        ?= 2

BIN         := $(VENV)/bin
CANDIDATES  := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
PINS        := $(addprefix -c ,$(CONSTRAINTS))

# The stamps are named by what is to be installed, so a changed pin or another branch
# installs again; they are left by a finished installation only.
KEY         := $(shell cat pyproject.toml $(CONSTRAINTS) | cksum | tr ' ' '-')
READY_RUN   := $(VENV)/.ready-run-$(KEY)
READY_DEV   := $(VENV)/.ready-dev-$(KEY)

# Tests compare numbers bit for bit and share few cores: one thread each.
ONE_THREAD  := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

demo: $(READY_RUN)  ## the whole story offline on this machine, ends with a leaderboard
	@$(BIN)/raycl demo $(ARGS)

test: $(READY_DEV)  ## every test but the long fault injection
	@$(ONE_THREAD) $(BIN)/python -m pytest -m "not ordeal" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY_DEV)  ## lint, format and strict types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(READY_DEV)  ## every timing script, in its quick form
	@set -e; for script in benchmarks/*.py; do \
	  if [ -e "$$script" ]; then echo "== $$script"; $(BIN)/python "$$script" --quick; fi; \
	done

ordeal: $(READY_DEV)  ## the repeated kills and soaks, by hand before a release
	@$(ONE_THREAD) $(BIN)/python -m pytest -m ordeal --timeout 7200 $(ARGS)

clean:  ## remove caches and builds (the environment stays)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name '.?*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

$(READY_RUN): EXTRA :=
$(READY_DEV): EXTRA := [dev]
$(READY_RUN) $(READY_DEV):
	@$(MAKE) --no-print-directory environment
	@rm -f $(VENV)/.ready-*
	@# Compiled as pip does it: every process that imports torch starts twice as fast.
	@if [ -x $(BIN)/uv ] && $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python $(PINS) -e '.$(EXTRA)'; \
	then :; else $(BIN)/python -m pip install $(PINS) -e '.$(EXTRA)'; fi
	@touch $(READY_RUN) $@

environment:
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  found=; for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "raycl needs Python 3.11 or newer; none of these is: $(CANDIDATES)." >&2; \
	    echo "Install one, or name it: make … PYTHON=<its path>" >&2; \
	    exit 2; \
	  fi; \
	  "$$found" -m venv --clear $(VENV) || { \
	    echo "$$found cannot make environments: install its venv package." >&2; exit 2; }; \
	fi
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip --upgrade
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet uv \
	  || echo "uv cannot be installed here; pip does its work, more slowly." >&2
