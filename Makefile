# The same verbs for people and for CI. Everything they make lies in this folder: .venv, .cache, .run, .bench.
# Only `install` and `lock` use the network, and `install` only after a lock has changed. Nothing here changes the system.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Without bytecode each of the hundreds of processes that tests start would compile all that it imports, for a second.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
ARGS ?=
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
WHEELS := .cache/wheels
UV_COMPILE := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

# Prints the newest Python that fits; else names what is missing and its cure.
define choose_python
for p in $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3); do \
	if "$$p" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; \
	then echo "$$p"; exit 0; fi; \
done; \
echo 'Missing: Python 3.11 to 3.14 with its venv module$(if $(PYTHON), ($(PYTHON) is not one)).' >&2; \
echo 'Cure: install it (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13),' >&2; \
echo 'or name one: make PYTHON=/path/to/python3.12 ...' >&2; \
exit 1
endef

MINOR := import sys; print(*sys.version_info[:2])
ifneq ($(PYTHON),)
ifneq ($(shell "$(PYTHON)" -c '$(MINOR)' 2>/dev/null),$(shell $(PY) -c '$(MINOR)' 2>/dev/null))
ANOTHER_PYTHON := yes
.venv/ready: another-python
endif
endif

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  PYTHON=python3.12 chooses the interpreter of .venv; ARGS="..." is handed on, as in: make fast ARGS="-x tests/core"'

.PHONY: install
install: .venv/installed ## Set up .venv from the locked dependencies (needs the network once)

.PHONY: run
run: install broker ## The demo: everything embedded, sample requests in, signed webhooks out
	@$(PY) -m pipeline demo $(ARGS)

.PHONY: cdc
cdc: install broker ## The index follows a database: PostgreSQL, Debezium, the pipeline; answers change with a row
	@$(PY) -m pipeline cdc $(ARGS)

.PHONY: test
test: install broker ## All tests, the real broker and the wheel included
	@$(PY) -m pytest -n 2 --dist worksteal -m 'not kafka and not system' $(ARGS)
	@$(PY) -m pytest -n 5 --dist loadgroup -m '(kafka or system) and not heavy and not soak' $(ARGS)
	@$(PY) -m pytest -n 3 --dist loadgroup -m heavy $(ARGS)

.PHONY: fast
fast: install ## The in-memory tests only: no broker, no processes
	@HYPOTHESIS_PROFILE=fast $(PY) -m pytest -n 2 --dist worksteal -m 'not kafka and not system and not local' $(ARGS)

.PHONY: check
check: check-lint check-format check-types check-layers check-budgets check-forbidden ## Lint, format, types, layers, budgets; changes nothing (make -k check: all findings)

.PHONY: fix
fix: install ## Mend what the linter and the formatter can mend
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

.PHONY: bench
bench: install broker ## Measure, within 40 minutes; writes .bench/results.json (ARGS="P1 P4 --rounds 2": less)
	@$(PY) -m tests.bench $(ARGS)

.PHONY: soak
soak: install broker ## Look for broken promises for a long time (a finding prints its seed, which makes it happen again)
	@$(PY) -m tests.bench --quick
	@$(PY) -m pytest -m soak
	@$(PY) -m pipeline simulate --seeds 10000
	@$(PY) -m tests.system.workload --minutes 20 $(ARGS)

.PHONY: up
up: install broker ## Start everything embedded and stay, until Ctrl-C
	@$(PY) -m pipeline up $(ARGS)

.PHONY: down
down: install ## Stop what a crashed `up` left behind
	@$(PY) -m pipeline down $(ARGS)

.PHONY: clean
clean: ## Remove everything that these verbs made in this folder
	@if [ -d .run ] && [ -x $(PY) ]; then $(PY) -m pipeline down || true; fi
	rm -rf .venv .cache .run .bench .hypothesis build dist htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: lock
lock: install ## Resolve the dependencies anew into the lock files (ARGS=--upgrade: to the newest)
	@$(UV_COMPILE) $(ARGS) pyproject.toml --output-file requirements.lock
	@$(UV_COMPILE) $(ARGS) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock

# ------------------------------------------------------------------------------------------------ the parts of check
.PHONY: check-lint check-format check-types check-layers check-budgets check-forbidden
check-lint: install
	@$(PY) -m ruff check .
check-format: install
	@$(PY) -m ruff format --check .
check-types: install
	@$(PY) -m mypy
check-layers: install
	@$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo --cache-dir .cache/import-linter
check-budgets: install
	@$(PY) -m tests.checks.budgets
check-forbidden: install
	@$(PY) -m tests.checks.forbidden

# ------------------------------------------------------------------------------------------------ set-up
# The wheels are fetched into a folder first: .venv is filled from there, and so is the clean environment of the wheel
# test. The stamp is a copy of the lock: a lock that is only newer, not other, costs nothing and needs no network.
.venv/ready: requirements-dev.lock
	@if [ -n '$(ANOTHER_PYTHON)' ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
		python=$$($(choose_python)) || exit 1; \
		echo "Making .venv with $$("$$python" --version)"; \
		"$$python" -m venv --clear .venv || exit 1; \
	fi; \
	if cmp -s requirements-dev.lock $@; then touch $@; exit 0; fi; \
	echo 'Fetching the locked dependencies into $(WHEELS) (the first time about 120 MB and a minute)'; \
	$(PIP) download --quiet --require-hashes --no-deps --only-binary=:all: --dest $(WHEELS) -r requirements-dev.lock && \
	$(PIP) install --quiet --require-hashes --no-deps --no-index --no-compile --find-links $(WHEELS) \
		-r requirements-dev.lock && \
	cp requirements-dev.lock $@

.venv/installed: .venv/ready pyproject.toml
	@$(PIP) install --quiet --no-index --no-deps --no-compile --no-build-isolation --editable .
	@touch $@

.PHONY: another-python
another-python:

# Names what the embedded broker lacks. A warning: the program can use another broker, Docker, or a volatile test broker.
.PHONY: broker
broker:
	@if [ -z "$$KAFKA_BOOTSTRAP_SERVERS$$KAFKA_BOOTSTRAP_SERVERS_FILE" ]; then \
		java=$$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p'); \
		if [ "$${java:-0}" -lt 17 ]; then \
			echo 'Warning: no Java 17 or newer, so no embedded Kafka. Cure: install one (Debian, Ubuntu: apt-get install' \
			     'default-jre-headless; macOS: brew install openjdk), or set KAFKA_BOOTSTRAP_SERVERS.' >&2; \
		fi; \
		if ! command -v mvn >/dev/null 2>&1; then \
			echo 'Warning: no Maven, which fetches the jars of the embedded Kafka. Cure: install it (Debian, Ubuntu:' \
			     'apt-get install maven; macOS: brew install maven), or set KAFKA_BOOTSTRAP_SERVERS.' >&2; \
		fi; \
	fi
