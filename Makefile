# What a person does here, a target each. `make` prints them.
#
# Rule 1: every target works from a fresh clone: it makes .venv from the lock file first, and only when that is stale.
# Rule 2: nothing is built or kept outside this folder, but a system package that Debian splits off Python itself.

PYTHON ?= python3
BIN := .venv/bin
SECONDS ?= 300
SOURCES := nodeagent provisioner tests protos docs

.PHONY: help setup dev check lint test vm console soak bench protos golden released lock

help: ## Print the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: .venv/stamp ## Make the environment in .venv from the lock file, and nothing else.
	@echo 'setup: .venv matches requirements.lock'

.venv/stamp: requirements.lock pyproject.toml
	@PYTHON='$(PYTHON)' sh .ci/environment

dev: .venv/stamp ## Start a provisioner, the agent of this host and eight simulated machines, on loopback.
	@exec $(BIN)/python -m provisioner.dev

check: .venv/stamp ## Format, lint, types, import contracts and the quick tests: under a minute.
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -q -n auto -m 'not slow'

lint: .venv/stamp
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: .venv/stamp ## Everything: what check does, the slower tests, and then the virtual machine, which takes both processors.
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n auto -m 'not vm'
	@$(BIN)/python -m tests.vm --only-make
	$(BIN)/pytest -n 6 --dist worksteal tests/vm

vm: .venv/stamp ## Both units in a virtual machine, under a real systemd, as docs/install.md has them installed. Takes root, once.
	@$(BIN)/python -m tests.vm --only-make
	$(BIN)/pytest -q -n 6 --dist worksteal tests/vm

console: .venv/stamp ## A shell in that machine, with both units running; nothing of what is done there stays.
	@exec $(BIN)/python -m tests.vm

soak: .venv/stamp ## Simulated fleets, real programs killed, fuzzed decoders, SECONDS=300 each: what fails says how it is replayed.
	@$(BIN)/python -m tests.simulation --seconds $(SECONDS)
	@$(BIN)/python -m tests.kills --seconds $(SECONDS)
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench: .venv/stamp ## Measure, print a table of ratios to the aims, and write build/bench.json.
	@$(BIN)/python -m tests.bench

protos: .venv/stamp ## Generate the Python of the protos and docs/api.md again.
	@$(BIN)/python protos/generate.py

golden: .venv/stamp ## Write the expected snapshots and matrices of the captured machines again; look at the difference.
	@$(BIN)/python -m tests.golden

released: .venv/stamp ## When a version is begun: keep the one that landed before, checked out in OF=FOLDER, for the tests of compatibility.
	@$(BIN)/python -m tests.release --of '$(OF)'

lock: .venv/stamp ## Resolve the dependencies again: the newest that pyproject.toml allows.
	$(BIN)/uv pip compile pyproject.toml --extra provisioner --group dev --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet -o requirements.lock
	echo ziglang | $(BIN)/uv pip compile - --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet -o .ci/compiler.lock
