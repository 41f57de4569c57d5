# smtp-horizon. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Debian's own Python, because python3-bpfcc is built for it; any other where that is not there.
PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INTERFACE ?=
WORKERS ?= 2
RELEASE ?= trixie
FUZZ_SECONDS ?= 120
# Tools for once in a while: each in an environment of its own, not in .venv.
CYCLONEDX := cyclonedx-bom==7.5.0
PIP_AUDIT := pip-audit==2.10.1

.PHONY: help setup run test lint format test-fast test-live thorough faults endurance kernels floods fuzz fresh boards bench wheel \
	lock sbom audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## set up .venv with .venv/bin/smtp-horizon, compiled; quick when nothing is to be done
	@$(BIN)/python scripts/native.py

$(STAMP): pyproject.toml scripts/setup
	@PYTHON=$(PYTHON) VENV=$(VENV) scripts/setup
	@touch $@

run: setup ## the main job: watch this machine's mail, or a demonstration (INTERFACE=eth0 to choose)
	@$(BIN)/python -m tests.lab.run $(INTERFACE)

test: setup lab lint ## lint, and the tests that must pass at every commit
	$(BIN)/pytest -q -n $(WORKERS) -m "not live and not thorough and not endurance"
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/pytest -q -m "live and not thorough" --ignore=tests/faults; \
	else echo "live tests need root: left out"; fi

test-fast: setup ## tests without live mail servers and captures' degraded copies
	$(BIN)/pytest -q -n $(WORKERS) -m "not live and not thorough and not endurance" --deselect tests/monitor/sessions/test_degraded.py

test-live: setup lab ## only the tests with real mail servers in network namespaces, as root
	$(BIN)/pytest -q -m live

thorough: setup lab ## what takes long and guards something narrow: replays, other TLS libraries, tshark's oddities, postgrey; as root
	$(BIN)/pytest -q -n $(WORKERS) -m "thorough and not live"
	$(BIN)/pytest -q -m "thorough and live"

faults: setup lab ## break what watch stands on (links, clock, disks, processes), and overload it; as root
	$(BIN)/pytest -q -m live tests/faults

endurance: setup lab ## 5,000 real sessions, 5,000 inside TLS, and six hours of packets in minutes, through the pyshark probe
	$(BIN)/pytest -q -m endurance tests/endurance

kernels: setup lab ## the BPF programs and the work itself on Debian's kernels, in QEMU; as root. ALL=1: the work on all, and docs/kernels.md
	$(BIN)/python -m tests.kernels $(if $(ALL),--all)

floods: setup ## a million SYNs, a line of a gigabyte and their kin: memory bounded, ordinary sessions right
	$(BIN)/python -m tests.floods

fuzz: setup ## invented traffic into every reader, for FUZZ_SECONDS (120)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

.PHONY: lab
lab: setup # what the live tests need of Debian's packages; nothing that is installed changes
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python -m tests.lab.packages; fi

lint: setup ## ruff, formatter, mypy --strict, import-linter, and whether the locks are up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests scripts
	$(BIN)/lint-imports
	$(BIN)/python scripts/lock.py --check

format: setup ## put every file in the formatter's shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fresh: ## make run and make test in a new root of Debian: RELEASE=bookworm or trixie (an hour); as root
	@$(PYTHON) scripts/fresh.py $(RELEASE)

boards: setup ## write boards and rules into dashboards/generated
	$(BIN)/python -m dashboards

bench: setup lab ## measure, and hold it against the goals (20 minutes)
	$(BIN)/python -m tests.bench

wheel: setup ## build the wheel into dist/
	$(BIN)/python -m pip --quiet wheel --no-deps --wheel-dir dist .

lock: setup ## write anew which packages, by hash, the container has (deploy/*.lock); needs the network
	$(BIN)/python scripts/lock.py

sbom: setup ## list what the container has of Python's packages: dist/sbom.cdx.json, CycloneDX; needs the network
	@mkdir -p dist
	@rm -rf build/sbom
	@$(BIN)/uv venv --quiet --python $(PYTHON) build/sbom
	$(BIN)/uv pip install --quiet --python build/sbom --require-hashes --requirement deploy/requirements.lock
	$(BIN)/uv tool run --quiet --from $(CYCLONEDX) cyclonedx-py environment --pyproject pyproject.toml \
		--output-reproducible --output-file dist/sbom.cdx.json build/sbom

audit: setup ## ask whether a locked package has a known vulnerability; needs the network
	@for lock in deploy/requirements.lock deploy/build.lock; do \
		echo "$$lock:"; \
		$(BIN)/uv tool run --quiet $(PIP_AUDIT) --strict --require-hashes --disable-pip \
			--progress-spinner off --requirement $$lock \
			|| { echo "make audit: not passed: a vulnerability, or the service that knows them could not be asked" >&2; exit 1; }; \
	done

clean: ## remove what the targets made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build
	find . -maxdepth 1 -name '*.so' -delete
	find monitor probes -name '*.so' -delete
