.DEFAULT_GOAL := help
BIN := .venv/bin
LOCAL := protos runtime services/audit services/auth services/dbcreds services/kv services/seal services/transit clients/python gateway cli

.PHONY: help setup run dev test test-containers test-histories lint protos protos-check bench lock clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Python does not keep what it compiled where it was told not to write, and each process would do it again.
setup: .venv/.done ## Make .venv with everything needed
	@$(BIN)/python -m compileall -q $(LOCAL)

# A distribution's own Python comes first: it is built with profile-guided optimisation, others often are not, and that is
# 10 to 20 % of all that is done here (docs/decisions/0031-which-python.md). PYTHON=path takes another.
PYTHON ?= $(shell for p in /usr/bin/python3.11 python3; do $$p -c 'import ensurepip' 2>/dev/null && echo $$p && break; done)

# uv takes a quarter of pip's time, and does not know what pip was told of mirrors: where it finds nothing, pip does it.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.venv/.done: requirements.lock $(LOCAL:%=%/pyproject.toml)
	@test -n "$(PYTHON)" || { echo "No Python with pip and venv was found: PYTHON=path names one, 3.11 or later."; exit 1; }
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(PIP) -r /dev/stdin
	$(BIN)/uv pip install --quiet --python .venv --compile-bytecode --require-hashes -r requirements.lock || $(PIP) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation $(LOCAL:%=-e %)
	touch $@

run: setup ## Set up and run the platform; state is kept in ./strongroom-data
	$(BIN)/strongroom server

dev: setup ## Run a platform for trying out, in a temporary folder
	$(BIN)/strongroom dev --root-token root

# Much of the time is spent waiting: leases that end, processes that stop and wake up. Files run side by side, in the order
# of tests/conftest.py.
test: setup ## Run the tests that need no containers; T=path picks some
	$(BIN)/pytest -q $(if $(T),$(T),-n 3 --dist loadfile --no-loadscope-reorder tests --ignore tests/containers --ignore tests/histories)

# Ports are published on loopback, and containers end with the tests: no helper image has to be pulled.
test-containers: setup ## Run the tests on containers (needs a Docker engine)
	TESTCONTAINERS_CONNECTION_MODE=docker_host TESTCONTAINERS_RYUK_DISABLED=true $(BIN)/pytest -q tests/containers

# What is hurt, and when, differs from run to run: what a run finds is a fault, but not always of the last change.
test-histories: setup ## Hurt platforms at random under load, and judge what clients saw
	$(BIN)/pytest -q tests/histories

lint: setup ## Check style, types, import rules, contracts and generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	@if git rev-parse --verify -q main >/dev/null; then $(BIN)/buf breaking --against '.git#branch=main'; fi
	$(MAKE) protos-check

bench: setup ## Measure KV beside OpenBao (needs wrk)
	$(BIN)/python bench/compare.py

protos: setup ## Regenerate protos/gen from the contracts
	rm -rf protos/gen
	$(BIN)/python scripts/protos.py

protos-check: protos ## Fail where protos/gen is not what the contracts say
	git diff --exit-code -- protos/gen

# What is pinned already stays as it is; UPGRADE=--upgrade takes the newest of everything.
PIN = $(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
OWN = $(shell sed -n 's/^name = "\(.*\)"/--no-emit-package \1/p' $(LOCAL:%=%/pyproject.toml))

lock: setup ## Pin what is new among the dependencies in the lock files
	$(PIN) $(OWN) pyproject.toml --group dev --output-file requirements.lock
	$(PIN) $(OWN) pyproject.toml --output-file deploy/requirements.lock
	echo hatchling | $(PIN) - --output-file deploy/build.lock

clean: ## Remove everything that was built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(LOCAL) -name __pycache__ -exec rm -rf {} +
