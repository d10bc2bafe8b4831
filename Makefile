PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_FLAGS ?= -n auto
export HOST PORT

VENV := .venv
BIN := $(VENV)/bin
# Dependencies come as wheels only: nobody needs a compiler, and no set-up script of theirs runs.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=:all:

.PHONY: run demo test check clean

run: $(VENV)/.example
	$(BIN)/flask --app example_app db upgrade
	exec $(BIN)/gunicorn -c example_app/gunicorn.conf.py

demo: $(VENV)/.example
	$(BIN)/python -m example_app.demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict flask_e2emsg example_app benchmarks tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that its extras are installed; a newer setup.py makes them be installed again.
$(VENV)/.example: setup.py | $(BIN)/python
	$(PIP_INSTALL) --editable '.[example]'
	@touch $@

$(VENV)/.dev: setup.py | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flask_e2emsg needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
