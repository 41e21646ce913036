# What people run here. It needs make and Python 3.11 or later; everything else is installed below this folder.
#
#   make demo    the bot in a local world, with a chat page
#   make test    every test, in two processes; JOBS=4 takes four
#   make check   lint, types, format, schemas
#   make bench   the benchmarks
#   make lock    write the lock files; UPGRADE=--upgrade takes the newest versions
#   make setup   only the installation that the others begin with
#
# With another Python: make test PYTHON=python3.13 VENV=.cache/venv-3.13

PYTHON ?= python3
VENV ?= .venv
UPGRADE ?=
JOBS ?= 2
BIN := $(VENV)/bin
PLAYGROUND := .cache/playground
PIPELINES := azure-pipelines.yml pipelines/platform-image.yml $(wildcard pipelines/images/*/azure-pipelines.yml)
SHELL_SCRIPTS := $(wildcard .ci/run scripts/*.sh pipelines/scripts/*.sh)

.PHONY: demo test check bench lock setup playground system-packages
.NOTPARALLEL:

demo: setup playground
	@exec $(BIN)/shipshape demo

test: setup system-packages playground
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/check-jsonschema --regex-variant python --builtin-schema vendor.azure-pipelines $(PIPELINES)
	@mkdir -p .cache
	$(BIN)/shipshape catalog-schema > .cache/catalog.schema.json
	$(BIN)/check-jsonschema --schemafile .cache/catalog.schema.json pipelines/catalog.yml bot/demo/catalog.yml
	@if command -v shellcheck >/dev/null; then set -x; shellcheck $(SHELL_SCRIPTS); \
	else echo "shellcheck is not installed, so the shell scripts were not looked at."; fi

bench: setup
	@for script in check_200 turns; do echo "== $$script"; $(BIN)/python -m bench.$$script || exit 1; done

setup: $(VENV)/.installed

# Once, and again when the lock changes. Nothing is taken that the lock does not name with its hash.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version)'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing the locked packages into $(VENV). This takes about a minute, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Microsoft's chat page for bots, where npm is there to install it. Without it the demo has the terminal chat.
playground:
	@cmp -s tests/e2e/package.json $(PLAYGROUND)/.installed || bash scripts/install-playground.sh $(PLAYGROUND)

system-packages:
	@bash scripts/system-packages.sh

# requirements.lock is for development and tests, requirements-serve.lock for the container image.
lock:
	@test -x .cache/uv/bin/uv || { $(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet uv; }
	.cache/uv/bin/uv pip compile pyproject.toml $(UPGRADE) --quiet --universal --python-version 3.11 \
	  --prerelease if-necessary --generate-hashes --no-emit-index-url --no-header \
	  --all-extras --group tests --group lint --group build --group bench -o requirements.lock
	.cache/uv/bin/uv pip compile pyproject.toml $(UPGRADE) --quiet --universal --python-version 3.11 \
	  --prerelease if-necessary --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --extra postgresql --constraint requirements.lock -o requirements-serve.lock
