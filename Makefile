# `make demo` and `make test` install what they need; they require Python >= 3.11, make and git.
PYTHON ?= python3
# Two more than two cores: tests on a cluster wait half of their time.
WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Compiled modules are kept: without them each of the hundreds of processes that the tests start
# compiles torch, ray and mlflow anew, which takes three times as long as importing them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-fast check format lint types layers bench soak fuzz audit docs docs-reference constraints constraints-oldest clean

install: $(READY)  ## the command colddiff in .venv/bin, with what it and its tests need

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("colddiff needs Python >= 3.11, this is %d.%d: make PYTHON=/path/to/python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@# Python compiles what it imports; compiling all 20,000 files here would take a minute more.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@touch $@

help:  ## what this file can do
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' Makefile | expand -t 24

demo: $(READY)  ## trains a restorer of blurred digits and shows what it does: 5 min
	@$(BIN)/colddiff demo

# Workers that take whole groups of tests (tests/groups.py) in the order given there.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS)

test: $(READY)  ## all tests, with a real Ray cluster and a real MLflow
	$(PYTEST)

test-fast: $(READY)  ## everything that needs no cluster
	$(PYTEST) -m 'not cluster'

check: format lint types layers  ## what needs no test: ruff, mypy, import layers

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

bench: $(READY)  ## figures of speed, on this machine
	$(BIN)/python -m tests.bench

soak: $(READY)  ## all kinds of jobs while what they run on is killed: 75 min on two idle cores
	$(BIN)/python -m tests.soak.train
	$(BIN)/python -m tests.soak.generate
	$(BIN)/python -m tests.soak.search
	$(BIN)/python -m tests.soak.chain  # with a cluster, a store and a tracker that fail: 20 min
	$(BIN)/python -m tests.soak.many_jobs  # 50 at once, half of them stopped: 15 min

# Not collected by pytest: tests/fuzz holds no test_*.py.
fuzz: $(READY)  ## tars, records, job files and overrides that are almost right: 10 min
	$(BIN)/python -m tests.fuzz

audit: $(READY)  ## known vulnerabilities of the pinned packages; says so where nobody can be asked
	$(BIN)/python infra/audit.py

docs-reference: $(READY)  ## infra/docs/reference.md, from the specs
	$(BIN)/python infra/docs/make_reference.py

docs: $(READY) docs-reference  ## the docs site in site/; a link that leads nowhere is an error
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@# Not --quiet: it takes the warnings away that --strict counts.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file infra/mkdocs.yml
	@echo "site/index.html"

constraints: $(READY)
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/^torch==\([^+]*\)+.*/torch==\1/' | (echo '# Pinned versions that `make install` uses; regenerate with `make constraints` after changing pyproject.toml.'; cat) > constraints.txt

# Checked by hand at a release: a virtual environment with these, and the tests without a cluster.
constraints-oldest: $(READY)  ## constraints-oldest.txt: the oldest versions that pyproject.toml allows
	@test -x $(VENV)/uv/bin/uv || { $(BIN)/python -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip install --quiet uv; }
	$(VENV)/uv/bin/uv pip compile pyproject.toml infra/oldest.in --quiet --resolution lowest-direct --python-version 3.11 \
		--no-annotate --custom-compile-command 'make constraints-oldest' --output-file constraints-oldest.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
