PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_FLAGS ?= -n auto
SEED ?=
export HOST PORT

VENV := .venv
BIN := $(VENV)/bin
# Dependencies come as wheels only: nobody needs a compiler, and no set-up script of theirs runs.
PIP := -m pip install --quiet --disable-pip-version-check --only-binary=:all:
PIP_INSTALL := $(BIN)/python $(PIP)

# A second environment, with the lowest versions that setup.py allows, and what is tested in it.
LOWEST := $(VENV)/lowest
LOWEST_PYTHON := $(LOWEST)/bin/python
LOWEST_TESTS := tests/transport tests/extension \
	$(addprefix tests/acceptance/test_,delivery.py driver.py other_servers.py shutdown.py) \
	$(addprefix tests/client/test_,connection.py envelope.py tls.py vectors.py) \
	tests/client/live/test_tls.py

.PHONY: run demo test test-threads test-lowest check js screenshots bench bench-quick bench-workers bench-clients crucible nginx chromium clean

run: $(VENV)/.example
	$(BIN)/flask --app example_app db upgrade
	exec $(BIN)/gunicorn -c example_app/gunicorn.conf.py

demo: $(VENV)/.example
	$(BIN)/python -m example_app.demo

test: $(VENV)/.dev js nginx chromium
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# The same once more without gevent: gunicorn's threads answer requests, and ours serve sockets.
test-threads: $(VENV)/.dev nginx
	TEST_WORKER_CLASS=gthread $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/acceptance tests/security

test-lowest: $(LOWEST)/.test
	$(LOWEST_PYTHON) -m pytest $(PYTEST_FLAGS) $(LOWEST_TESTS)

check: $(VENV)/.dev js nginx chromium
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict flask_e2emsg example_app benchmarks tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks --rounds 5 $(BENCH_FLAGS)

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick $(BENCH_FLAGS)

# How long a message takes to somebody on another worker.
bench-workers: $(VENV)/.bench
	$(BIN)/python -m benchmarks.workers

# How quick the clients seal, open and take in a backlog.
bench-clients: $(VENV)/.dev chromium
	$(BIN)/python -m benchmarks.clients

# Load and faults together, for a quarter of an hour; the report names the seed that it began with.
crucible: $(VENV)/.dev
	$(BIN)/python -m tests.crucible --profile campaign --seed "$(SEED)" --out build/crucible

# The browser client's modules under Node, against another implementation, and their types.
js: tests/js/node_modules
	npm --prefix tests/js run --silent types
	npm --prefix tests/js run --silent test

tests/js/node_modules: tests/js/package-lock.json
	@command -v npm >/dev/null || { echo "The browser client's tests need Node.js 20 and npm." >&2; exit 1; }
	npm --prefix tests/js ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

# The pictures of the chat in docs/, taken anew.
screenshots: $(VENV)/.dev chromium
	SCREENSHOTS=docs $(BIN)/python -m pytest tests/example_app/test_screenshots.py

nginx:
	@.ci/nginx

chromium:
	@.ci/chromium

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that its extras are installed; a newer setup.py makes them be installed again.
$(VENV)/.example: setup.py | $(BIN)/python
	$(PIP_INSTALL) --editable '.[example]'
	@touch $@

$(VENV)/.bench: setup.py | $(BIN)/python
	$(PIP_INSTALL) --editable '.[bench]'
	@touch $@

$(VENV)/.dev: setup.py | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

# What a host installs has to boot before the tests bring packages that it might lack.
$(LOWEST)/.test: setup.py .ci/lowest.py .ci/boot.py | $(BIN)/python
	rm -rf $(LOWEST)
	$(BIN)/python -m venv $(LOWEST)
	$(BIN)/python .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST_PYTHON) $(PIP) --constraint $(LOWEST)/constraints.txt --editable '.[gunicorn]'
	$(LOWEST_PYTHON) .ci/boot.py
	$(LOWEST_PYTHON) $(PIP) --constraint $(LOWEST)/constraints.txt --editable '.[test]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flask_e2emsg needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
