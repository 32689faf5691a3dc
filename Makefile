# Every target makes the environment it needs; nothing is installed by hand.

.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench docs lint clean

# The interpreter environments are made with: `make test PYTHON=python3.12`.
# Without it, the first of these that is Python 3.10 to 3.13 and has venv.
PYTHON ?=
CANDIDATES = $(or $(PYTHON),python3.12 python3.11 python3.13 python3.10 python3)
FITS := import sys, ensurepip, venv; \
  sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

# What benchmarks compare with.
PEERS := accelerate bert-tensorflow ctranslate2 keras-hub onnx onnxruntime onnxscript \
  openvino torch==2.13.0 transformers
# What makes the site of docs/.
DOCS := "furo>=2025.7" "myst-parser>=4,<6" "sphinx>=8.1,<10"
BENCHMARKS = $(filter-out __init__ encoder_decoders hugging_face_finetune, \
  $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py)))

RUN := .venv/bin/python
export KERAS_BACKEND := tensorflow
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL ?= 3
# A file's tests share what they train, so they stay in one process. Two runs:
# TensorFlow keeps memory of graphs that are gone, so processes grow.
TESTS := $(RUN) -m pytest -q -n 2 --dist=loadfile
define tests
@$(TESTS) $(1) tests/bert_keras; first=$$?; \
  $(TESTS) $(1) tests --ignore=tests/bert_keras && exit $$first
endef

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s%s\n", $$1, $$2}' \
	  $(MAKEFILE_LIST)

demo: .venv/stamp  ## the life cycle on small data, or on TRAIN=a.tsv DEV=b.tsv
	@$(RUN) -m demo $(if $(TRAIN),--train="$(TRAIN)") \
	  $(if $(DEV),--dev="$(DEV)")

test: .venv/stamp  ## the tests, without the slow ones
	$(call tests,-m "not slow")

test-all: .venv/stamp  ## all tests
	$(call tests)

bench: .venv-bench/stamp  ## an environment with peers, and what to run in it
	@echo "Each of these prints one table of ratios:"
	@for name in $(BENCHMARKS); do \
	  echo "  .venv-bench/bin/python -m benchmarks.$$name"; done

docs: .venv-docs/stamp  ## the site of docs/, in .build/docs; warnings are errors
	@.venv-docs/bin/python -m sphinx -q -W --keep-going -d .build/doctrees \
	  docs .build/docs
	@echo "Open .build/docs/index.html"

lint: .venv/stamp  ## what the formatter, the linter and mypy find
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

clean:  ## remove environments, caches and demo-output; runs/ stays
	rm -rf .venv .venv-bench .venv-docs .build build demo-output *.egg-info \
	  .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./runs/*" -prune -exec rm -rf {} +

# $(call environment,FOLDER,ARGUMENTS OF PIP INSTALL,SIZE AND TIME)
# The stamp is written last: an interrupted installation starts again.
define environment
@for python in $(CANDIDATES); do \
  "$$python" -c '$(FITS)' 2>/dev/null && break; python=; \
done; \
if [ -z "$$python" ]; then \
  echo "Expected Python 3.10 to 3.13 with venv, found none among:" \
    "$(CANDIDATES). Install one (Debian: apt-get install python3-venv)" \
    "or name one: make PYTHON=/path/to/python3.12" >&2; \
  exit 1; \
fi; \
echo "Making $(1) with $$("$$python" --version) ..."; \
"$$python" -m venv --clear $(1)
@echo "Installing $(2) ($(3)) ..."
@$(1)/bin/python -m pip install --quiet $(2)
@touch $(1)/stamp
endef

.venv/stamp: requirements.lock
	$(call environment,.venv,-r requirements.lock,2.5 GB: a minute or two)

.venv-bench/stamp: requirements.lock
	$(call environment,.venv-bench,-r requirements.lock $(PEERS),several GB: some minutes)

# It sees the packages of .venv, whose versions stay as they are.
SITE := import sysconfig; print(sysconfig.get_path("purelib"))

.venv-docs/stamp: .venv/stamp
	@echo 'Making .venv-docs and installing $(DOCS) (120 MB) ...'
	@.venv/bin/python -m venv --clear .venv-docs
	@.venv-docs/bin/python -m pip install --quiet $(DOCS)
	@.venv/bin/python -c '$(SITE)' \
	  > "$$(.venv-docs/bin/python -c '$(SITE)')/venv.pth"
	@touch $@
