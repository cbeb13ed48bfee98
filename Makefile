# orlop: `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# One more than there are cores: tests wait as often as they work.
WORKERS := $(shell expr $$(nproc) + 1)

.DEFAULT_GOAL := help
.PHONY: help setup compiled demo test test-fast test-vm vm-shell lint wire wire-check soak storm bench screenshots clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## install Debian packages and the virtual environment (quick the second time)

$(STAMP): pyproject.toml scripts/install-packages.sh scripts/make-venv.sh
	@scripts/install-packages.sh
	@scripts/make-venv.sh $(VENV) $(PYTHON)
	@touch $(STAMP)

# Tests start some ten thousand interpreters, none of which shall have to compile, whatever
# PYTHONDONTWRITEBYTECODE says.
compiled: setup
	@$(BIN)/python -m compileall -q src tests benchmarks

demo: compiled ## push to and pull from a real registry, run containers through runc, clean up
	@scripts/demo.sh

test: compiled lint wire-check ## everything: lint, types, import contract, all tests, some in the virtual machine
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 25 tests
	@$(BIN)/python -m tests.vm --short

test-fast: compiled lint ## lint and the unit tests, under two minutes
	@$(BIN)/python -m pytest -n $(WORKERS) -q tests/unit

test-vm: setup ## the tests of tests/vm, in a virtual machine (ARGS: arguments of pytest)
	@$(BIN)/python -m tests.vm $(ARGS)
	@$(if $(ARGS),,$(BIN)/python -m tests.vm --hybrid)

vm-shell: setup ## a root shell in that machine, with this checkout
	@$(BIN)/python -m tests.vm --shell

lint: setup ## ruff, mypy --strict, import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --num-workers $$(nproc)
	@$(BIN)/lint-imports

wire: setup ## generate src/orlop/wire from proto/
	@scripts/generate-wire.sh

wire-check: setup
	@scripts/check-wire.sh

soak: compiled ## 20 minutes of random verbs by 8 clients, then 300 kills at random under load
	@$(BIN)/python -m tests.soak --clients 8
	@$(BIN)/python -m tests.soak --clients 8 --kills 300

storm: compiled ## kill what stores at every step that it takes, 500 times at random, and with the power
	@$(BIN)/python -m tests.storm --rounds 500

bench: compiled ## compare with Debian's containerd, in one run, on a tmpfs
	@$(BIN)/python -m benchmarks

screenshots: compiled ## make the pictures of the status page in docs/screenshots anew, three minutes
	@ORLOP_SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest -q tests/integration/status/test_page.py -k is_seen

clean: ## remove what the other targets made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
