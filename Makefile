# Two commands do all of their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN ?= runs/digits
ARGS ?=

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export XDG_CACHE_HOME ?= $(CURDIR)/.cache

.PHONY: demo test lint format train study-digits clean

demo: $(STAMP)  ## train KIND on handwritten digits, take it apart, and write a report
	$(BIN)/python train.py --config configs/digits.py --workdir $(RUN) $(ARGS)
	$(BIN)/kind-jax sample $(RUN) --out $(RUN)/samples.png
	$(BIN)/kind-jax inspect $(RUN)
	$(BIN)/kind-jax export $(RUN) --out $(RUN)/artifact --replace
	$(BIN)/kind-jax sample $(RUN)/artifact --classes 3,7 --out $(RUN)/samples_3_7.png
	$(BIN)/kind-jax report $(RUN)

test: $(STAMP)  ## the tests, on CPU
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

train: $(STAMP)  ## make train ARGS='--config configs/digits.py --train.steps 1000'
	$(BIN)/python train.py $(ARGS)

study-digits: $(STAMP)  ## the figures of docs/results.md
	$(BIN)/python studies/digits.py $(ARGS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache
