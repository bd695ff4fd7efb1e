# Everything here runs on a bare machine with Python 3.11, git and a package registry.
PYTHON ?= python3.11
# pip index with torch's CPU build, where the default registry would give a CUDA build.
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
# rules (no model) or the name of a stronger local model: qwen-0.5b, qwen-1.5b
DISTILLER ?= rules
export HIEXP_CACHE ?= $(HOME)/.cache/hiexp_verl
export HF_HUB_OFFLINE = 1

.PHONY: help install assets demo bench test test-all check lint types unit verl compat train slow chaos e2e verl090 clean

help:  ## show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## the environment in .venv, every package pinned

$(VENV)/.installed: requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/python -W ignore -c "import torch, sys; sys.exit('torch is a CUDA build; set TORCH_INDEX to the index with its CPU build' if torch.version.cuda else 0)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

assets: install  ## models, encoder and questions, fetched once into HIEXP_CACHE
	$(BIN)/python -m recipes.demo_data smollm2-135m minilm factbook hotpot

demo: install  ## the whole loop on this machine: warm start, rollouts, HEK, GRPO, GSPO, report
	$(BIN)/python -m recipes.cpu_demo.run --distiller $(DISTILLER)

bench: install assets  ## what it costs, compared with the usual alternative: 15 minutes on 2 cores, benchmarks/results
	$(BIN)/python -m benchmarks

test: check assets unit verl compat train  ## what .ci/run runs: lint, types, units, verl, and one training, killed and resumed

test-all: test slow e2e verl090  ## all trainer modes, GSPO, the whole demo, long property tests, all of verl 0.9.0

check: lint types

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/basedpyright

unit: install  ## without verl, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not verl and not e2e and not slow"

verl: install  ## the plugin on the installed verl, without training
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "verl and not e2e and not slow"

compat: .venv090/.installed  ## registration, doctor, advantage, trainer, agent loop, golden transcripts on verl 0.9.0
	.venv090/bin/python -m pytest -n 2 --dist loadfile -m "compat and not e2e"

train: install assets  ## one training with verl and vLLM from a HEK of its own rollouts, killed and resumed
	$(BIN)/python -m pytest tests/e2e/test_training.py

chaos: install  ## kills, writers at once, mutations, forged HEKs, damaged runs, full disks, odd input: about an hour
	$(BIN)/python -m tests.chaos --long --json benchmarks/results/chaos.json

slow: install assets  ## benchmarks in small, real data, and the property tests again with many examples
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n 2 --dist loadfile -m "(slow or hypothesis) and not e2e"

e2e: install assets .venv090/.installed  ## the other trainings: the demo, trainer modes, LoRA, verl 0.9.0
	$(BIN)/python -m pytest -m e2e --ignore tests/e2e/test_training.py

# verl 0.9.0 over the same environment: a venv that sees .venv's packages behind its own.
.venv090/.installed: $(VENV)/.installed
	$(PYTHON) -m venv .venv090
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > $$(.venv090/bin/python -c "import site; print(site.getsitepackages()[0])")/base.pth
	.venv090/bin/python -m pip install --quiet --disable-pip-version-check --no-deps verl==0.9.0
	.venv090/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

verl090: .venv090/.installed  ## all tests of the plugin on verl 0.9.0 (e2e trains with it)
	.venv090/bin/python -m pytest -n 2 --dist loadfile -m "verl and not e2e"

clean:  ## remove environments and outputs, keep the cache
	rm -rf $(VENV) .venv090 outputs
