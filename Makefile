# make demo    set everything up, train a small CNN and open the viewer
# make test    set everything up and run the tests
# make check   run lint, type checks, the documentation and tests with their coverage, as CI does
# make docs    build the documentation into site/; open site/index.html
# make test-versions  run the tests with the oldest and the newest versions that are supported
# make dist    build the wheel and the source distribution, install and try them
# make zoo, make fuzz, make soak  run the long benchmarks of exactness, of damage and of memory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The [dev] extra brings Node from PyPI, npm brings TypeScript and ESLint. Only the checks of the
# page's script need them.
NODE := $(BIN)/node
NODE_MODULES := node_modules/.package-lock.json
DEMO ?= examples/01_digits.py
# One more than processors: tests also wait, for processes, servers and events.
PROCESSES ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
NOX = UV_PYTHON_DOWNLOADS=never PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nox --reuse-venv yes

# torch and torchvision must come from one index in one call: builds from different sources do not
# load into the same process.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check torch torchvision

.PHONY: demo test test-units test-browser coverage check lint types docs pictures browser \
	test-versions dist zoo fuzz soak clean

demo: $(VENV)/.demo
	@$(BIN)/revacnn launch $(DEMO) $(ARGS)

# One thread per process: the networks of the tests are so small that threads of torch would wait
# for each other. The tests of a file share servers and trainings, so they run in one process. If one
# of these crashes, the run ends and names the test: pytest-xdist's distribution by files waits
# forever after it has replaced a process.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile \
	--max-worker-restart 0

UNITS = $(PYTEST) --ignore tests/browser

test: test-units test-browser

test-units: $(VENV)/.dev
	$(UNITS) $(ARGS)

# The same tests. Prints which lines and branches they leave out, in this process and its workers,
# and fails below the share in pyproject.toml.
coverage: $(VENV)/.dev
	$(UNITS) --cov --cov-report term $(ARGS)

# In processes of their own: Playwright leaves an event loop running, in which asyncio.run() fails.
# They run a browser, servers and trainings beside each other, which keep all processors busy. One
# that fails runs once more, and the summary names it (R).
test-browser: PROCESSES := auto
test-browser: $(VENV)/.dev browser
	$(PYTEST) tests/browser --reruns 1 -rR $(ARGS)

# The tests of `make test`, those without a browser once, with their coverage.
check: lint types docs coverage test-browser

lint: $(VENV)/.dev $(NODE_MODULES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(NODE) node_modules/eslint/bin/eslint.js --max-warnings 0 viewer tests eslint.config.js

types: $(VENV)/.dev $(NODE_MODULES)
	$(BIN)/mypy
	$(NODE) node_modules/typescript/bin/tsc

# Warnings are errors, such as a link to a page or a heading that does not exist.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pictures of the documentation, from the real program; ARGS="--only NAME" makes one of them.
pictures: $(VENV)/.dev browser
	$(BIN)/python docs/make_pictures.py $(ARGS)

# Environments of their own, one per session of noxfile.py; ARGS="-s viewer_newest-3.13" runs one.
# Interpreters that are not installed are skipped by name.
test-versions: $(VENV)/.nox
	$(NOX) $(ARGS)

dist: $(VENV)/.nox
	rm -rf dist
	$(BIN)/uv build --quiet
	$(NOX) -s installed sdist_tests $(ARGS)

# Networks of all families, one filter removed from and one added to each layer, and 20 edits in a
# row: about an hour.
zoo: $(VENV)/.dev
	$(BIN)/python -m benchmarks.steering_zoo --check $(ARGS)
	$(BIN)/python -m benchmarks.steering_chains --check $(ARGS)

# Random edits, damaged messages and hostile clients: about an hour.
fuzz: $(VENV)/.dev
	$(BIN)/python -m benchmarks.steering_fuzz --check $(ARGS)
	$(BIN)/python -m benchmarks.hostile_messages --check $(ARGS)
	$(BIN)/python -m benchmarks.hostile_clients --check $(ARGS)

# Memory of the page and of the server while a training is edited for half an hour.
soak: $(VENV)/.dev browser
	$(BIN)/python -m benchmarks.viewer --nets --edits 0 --soak 30 --check $(ARGS)

browser: $(VENV)/.dev
	@.ci/browser $(BIN)/playwright

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is required: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing the demo (PyTorch has a few GB; this takes some minutes)"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing the test environment (PyTorch has a few GB; this takes some minutes)"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.nox: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'nox>=2024.4.15' uv
	@touch $@

$(NODE_MODULES): package.json package-lock.json $(VENV)/.dev
	@echo "Installing TypeScript and ESLint"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --loglevel=error --no-progress
	@touch $@

clean:
	rm -rf $(VENV) .nox node_modules .mypy_cache .pytest_cache .ruff_cache build dist site
