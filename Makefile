# Everything runs in environments made here; nothing has to be installed first but Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
PEERS_VENV ?= .venv-peers
LOWEST_VENV ?= .venv-lowest
DOCS_VENV ?= .venv-docs
BROWSER_VENV ?= .venv-browser
CLUSTER_VENV ?= .venv-cluster
JOB_VENV ?= .venv-cluster-job
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check
OUT := cloakonnx-demo
FUZZ_SECONDS ?= 3600
FUZZ_SEED ?= 0

.PHONY: demo test test-peers test-cluster test-cluster-all test-cluster-job test-browser test-lowest fuzz lint format smoke clean docs

## demo: set up an environment, harden a bundled classifier in cloakonnx-demo/, and show what that brings
demo: $(VENV)/.demo
	$(BIN)/cloakonnx demo -o $(OUT) --force
	@echo "cloakonnx is in $(VENV); for the commands above, first:"
	@echo "  . $(VENV)/bin/activate"

## test: the tests that need no framework and no browser, in two halves side by side
test: $(VENV)/.dev
	sh tests/run.sh $(BIN)/python

## test-peers: the tests against PyTorch and reference implementations
test-peers: $(PEERS_VENV)/.peers
	$(PEERS_VENV)/bin/python -m pytest -q tests/peers

## test-cluster: the tests on a Ray cluster of three nodes and on an object store, all on this machine
test-cluster: $(CLUSTER_VENV)/.cluster
	$(CLUSTER_VENV)/bin/python -m pytest -q tests/cluster

## test-cluster-all: the same with every kind of run under every fault, which takes longer
test-cluster-all: $(CLUSTER_VENV)/.cluster
	CLOAKONNX_CLUSTER=all $(CLUSTER_VENV)/bin/python -m pytest -q tests/cluster

## test-cluster-job: ray job submit, on a head with a dashboard
test-cluster-job: $(JOB_VENV)/.job
	CLOAKONNX_CLUSTER=all $(JOB_VENV)/bin/python -m pytest -q tests/cluster/test_job.py

## test-browser: the report in a headless Chromium (Debian's, or $CHROMIUM); screenshots go to test-artifacts/
test-browser: $(BROWSER_VENV)/.browser
	$(BROWSER_VENV)/bin/python -m pytest -q tests/browser

## test-lowest: the tests with the lowest versions that pyproject.toml allows
test-lowest: $(LOWEST_VENV)/.lowest
	$(LOWEST_VENV)/bin/python -m pytest -q --ignore=tests/peers --ignore=tests/cluster --ignore=tests/browser

## docs: the documentation as a site, with the API reference, in build/docs
docs: $(DOCS_VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet

## fuzz: changed models, data, results, settings and options for FUZZ_SECONDS; what is found goes to fuzz-findings/
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

## lint: linter, format check, strict type check
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## smoke: build the wheel and try it in a bare environment
smoke: $(VENV)/.dev
	PYTHON=$(PYTHON) sh tests/smoke.sh $(BIN)/python

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cloakonnx needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -e .
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cloakonnx needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[dev]'
	touch $@

$(PEERS_VENV)/.peers: pyproject.toml tests/peers/requirements.txt tests/peers/requirements-no-deps.txt
	test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev]' -r tests/peers/requirements.txt
	$(PEERS_VENV)/bin/python -m pip install $(PIP_FLAGS) --no-deps -r tests/peers/requirements-no-deps.txt
	touch $@

$(CLUSTER_VENV)/.cluster: pyproject.toml tests/cluster/requirements.txt
	test -x $(CLUSTER_VENV)/bin/python || $(PYTHON) -m venv $(CLUSTER_VENV)
	# s3fs takes few versions of botocore and moto takes any: asked for both at once, pip finds no set.
	$(CLUSTER_VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev,ray,remote]'
	$(CLUSTER_VENV)/bin/python -m pip list --format=freeze | grep '^botocore==' >$(CLUSTER_VENV)/botocore.txt
	$(CLUSTER_VENV)/bin/python -m pip install $(PIP_FLAGS) -r tests/cluster/requirements.txt -c $(CLUSTER_VENV)/botocore.txt
	touch $@

$(JOB_VENV)/.job: pyproject.toml
	test -x $(JOB_VENV)/bin/python || $(PYTHON) -m venv $(JOB_VENV)
	$(JOB_VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev,ray]' 'ray[default]'
	touch $@

$(BROWSER_VENV)/.browser: pyproject.toml tests/browser/requirements.txt
	test -x $(BROWSER_VENV)/bin/python || $(PYTHON) -m venv $(BROWSER_VENV)
	$(BROWSER_VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[report]' -r tests/browser/requirements.txt
	touch $@

$(DOCS_VENV)/.docs: pyproject.toml
	test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[docs]'
	touch $@

$(LOWEST_VENV)/.lowest: pyproject.toml tests/lowest.txt
	test -x $(LOWEST_VENV)/bin/python || $(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python -m pip install $(PIP_FLAGS) -e '.[dev]' -c tests/lowest.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS_VENV) $(LOWEST_VENV) $(DOCS_VENV) $(BROWSER_VENV) $(CLUSTER_VENV) $(OUT) demo-out test-artifacts fuzz-findings dist build
