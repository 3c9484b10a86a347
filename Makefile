# make run    convert the sample, or your own disk: make run SRC=disk.vhdx DST=disk.img
# make test   run every test
# make check  lint, types and tests: what CI runs
# make bench  compare with qemu-img and cp

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SRC ?= testdata/sample.vhdx
DST ?= sample.img

.PHONY: run test lint types check bench dist clean

run: $(VENV)/.run
	$(BIN)/vhdx2raw -v $(if $(filter sample.img,$(DST)),--force) "$(SRC)" "$(DST)"
	@ls -ls "$(DST)"

test: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST_OPTIONS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH_OPTIONS)

dist: $(VENV)/.dev
	$(BIN)/python -m build --outdir dist .

# Dependency groups need pip 25.1.
$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage sample.img
