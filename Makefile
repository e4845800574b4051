# `make demo` and `make test` do everything. They need make, a POSIX shell and Python 3.11, and install into .venv.
# Another interpreter: make demo PYTHON=/path/to/python3

PYTHON = python3.11
VENV = .venv
BENCH_VENV = .venv-bench
DEMO = glm-data-demo
DATA =

BIN = $(VENV)/bin
# Nothing is byte-compiled on installation: Python does it for the few modules it really imports, in half the time.
# Our own kernels are compiled, once, so that neither the first run nor each test worker does it.
PIP_INSTALL = -m pip --disable-pip-version-check install --quiet --no-compile

.PHONY: help demo test lint bench docs clean distclean

help:
	@echo 'make demo    set up $(VENV) and run the whole job on the bundled corpus, into $(DEMO)'
	@echo 'make test    set up $(VENV) for development; run the tests, lint, check types'
	@echo 'make lint    ruff check, ruff format --check, mypy'
	@echo 'make bench   run the benchmarks and write docs/benchmarks.md (DATA=DIR: on shards of your own)'
	@echo 'make docs    write anew what is generated from the commands; build the site into docs/_build'
	@echo 'make clean   remove caches and build products (distclean: the environments and the demo too)'

demo: $(VENV)/.train
	$(BIN)/glm-data demo $(DEMO)

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2
	@$(MAKE) --no-print-directory lint

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev $(BENCH_VENV)/.peers
	$(BIN)/python -m benchmarks --peers $(BENCH_VENV)/bin/python $(if $(DATA),--data $(DATA))

docs: $(VENV)/.dev
	$(BIN)/python docs/write_cli.py
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo 'docs/_build/index.html'

clean:
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV) $(DEMO)

# A stamp stands for a finished installation; it is made again when what it was made from changes.
$(VENV)/.train: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' here; name a Python 3.11: make $(MAKECMDGOALS) PYTHON=..."; exit 1; }
	@echo 'installing into $(VENV) (once; a few minutes)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[train,web]'
	@echo 'compiling the kernels (once)'
	$(BIN)/glm-data doctor --compile --quiet
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev,train]'
	@touch $@

$(BENCH_VENV)/.peers: benchmarks/peers.txt benchmarks/peers-alone.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) -r benchmarks/peers.txt
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) --no-deps -r benchmarks/peers-alone.txt
	@touch $@
