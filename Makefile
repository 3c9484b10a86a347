# make run    convert the sample, or your own disk: make run SRC=disk.vhdx DST=disk.img
# make test   run every test, on all processors; make quick  the quick ones of the unit tests
# make check  lint, types and tests; make coverage  tests with the lines and branches they reach
# make matrix  the tests on every Python from 3.10 to 3.14 that is at hand
# make fuzz   try hostile images until interrupted, or: make fuzz FUZZ_OPTIONS="--seconds 60 --seed 7"
# make docs   write docs/cli.md, the manual page and docs/format-rules.md anew from the code
# make dist   build the wheel and the source distribution; make zipapp: a single file for Python
# make test-wheel, make test-lowest    test what users install, with the newest or oldest dependencies
# make bench  compare with qemu-img and cp; make azurite: a server that tests of Azure need

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SRC ?= testdata/sample.vhdx
DST ?= sample.img
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
WHEEL := dist/vhdx2raw-$(VERSION)-py3-none-any.whl
CHECKOUT_TESTS := test_wheel.py test_packaging.py test_zipapp.py

# Compiled once, and not by each of the thousands of programs that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test quick matrix coverage lint types check docs fuzz fuzz-coverage bench dist zipapp \
	test-wheel test-lowest azurite clean

run: $(VENV)/.run
	$(BIN)/vhdx2raw -v $(if $(filter sample.img,$(DST)),--force) "$(SRC)" "$(DST)"
	@ls -ls "$(DST)"

test: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

quick: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -q tests/unit -m "not slow" \
		$(PYTEST_OPTIONS)

matrix: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group matrix
	$(BIN)/nox $(NOX_OPTIONS)

coverage: $(VENV)/.dev
	$(BIN)/pytest --cov --cov-report=term $(PYTEST_OPTIONS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz $(FUZZ_OPTIONS)

# The same led by coverage; FUZZ_OPTIONS are then those of libFuzzer.
fuzz-coverage: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz.atheris_harness $(FUZZ_OPTIONS)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH_OPTIONS)

# The wheel and the source distribution.
dist: $(VENV)/.dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict $(WHEEL) dist/vhdx2raw-$(VERSION).tar.gz

# One file for machines where nothing can be installed: python3 vhdx2raw.pyz disk.vhdx disk.img
zipapp: dist
	$(BIN)/python tools/make_zipapp.py $(WHEEL) dist/vhdx2raw.pyz

# The tests of the source distribution against the installed wheel, with nothing of the checkout;
# test-lowest with the oldest versions of the dependencies that pyproject.toml allows.
test-wheel test-lowest: dist
	rm -rf build/$@
	mkdir -p build/$@/tree
	tar -xf dist/vhdx2raw-$(VERSION).tar.gz --strip-components=1 -C build/$@/tree
	rm -r build/$@/tree/vhdx2raw
	sed -n '/^dependencies = /,/^]/s/^ *"\([a-z0-9]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml \
		>build/$@/lowest.txt
	$(PYTHON) -m venv build/$@/venv
	build/$@/venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	build/$@/venv/bin/python -m pip install --quiet $(WHEEL) --group test \
		$(if $(filter test-lowest,$@),--constraint build/$@/lowest.txt)
	cd build/$@/tree && ../venv/bin/pytest $(addprefix --ignore=tests/project/,$(CHECKOUT_TESTS)) \
		$(PYTEST_OPTIONS)

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

$(VENV)/.dist: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group dist
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group fuzz
	@touch $@

# Azure's Blob storage on this machine, for the tests; the newest one that runs on Node.js 18 and 20.
azurite: build/azurite/node_modules/.bin/azurite-blob

build/azurite/node_modules/.bin/azurite-blob:
	npm install --silent --no-audit --no-fund --omit=dev --omit=optional --prefix build/azurite \
		azurite@3.35.0

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .nox \
		.coverage sample.img
