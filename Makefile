# From a fresh clone, Python >= 3.11 and make are enough: each target makes the environment it needs, once.

VENV ?= .venv
# The interpreter that makes the environment; name another with: make PYTHON=/path/to/python3.12 test
PYTHON ?= python3.11 python3.12 python3.13 python3.14 python3 python

EXTRAS := dev,docs,augment,grpc,nncf,openvino,postgresql,tensorboard,tensorrt-rtx
# The one version that is chosen here and not by `make constraints`: a new torch is taken on purpose.
TORCH := 2.13.0
# The libraries whose networks are adopted in tests, with the torch that torchvision's build needs.
ZOO := torch==2.14.1 torchvision==0.29.1 timm==1.0.31 transformers==5.24.0
PACKAGES := ofa search latency_tables devices
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet

# Prints the first candidate that runs, is new enough and can make an environment (a name may be on the path and yet not run).
FIND_PYTHON = for candidate in $(PYTHON); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then command -v "$$candidate"; exit 0; fi; done; \
	  echo "Python 3.11 or newer with its venv module is needed, but none of these is that: $(PYTHON);" \
	    "install it or name it, for example: make PYTHON=/usr/local/bin/python3.12 $(MAKECMDGOALS)" >&2; exit 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu test-docs test-zoo torture lint format docs docs-serve pages screens tour release constraints clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## the whole road on scikit-learn's digits, into demo/
	@$(BIN)/ofa demo -o demo

test: $(STAMP) ## the fast tests, in two processes
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP) ## the tests that take longer
	@$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(STAMP) ## the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu

test-docs: $(STAMP) ## the tests that execute what the docs show
	@$(BIN)/python -m pytest -n 2 --dist load -m docs

# In an environment of its own, for these libraries are large and nothing else needs them. ONLY="swin or vit" chooses networks.
test-zoo: .venv-zoo/.installed ## adopting: networks of torchvision, timm and transformers (half an hour)
	@.venv-zoo/bin/python -m pytest -m zoo tests/zoo $(if $(ONLY),-k "$(ONLY)")

# OUT=FILE also writes what was tried as JSON, ONLY="kills and train" chooses tests.
torture: $(STAMP) ## faults by the thousand: kills, disks, damaged and hostile files, cut lines (hours)
	@$(BIN)/python benchmarks/torture.py $(if $(OUT),--out $(OUT)) $(if $(ONLY),--only "$(ONLY)")

lint: $(STAMP) ## style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(PACKAGES)

format: $(STAMP) ## let ruff put imports and formatting right
	@$(BIN)/ruff check --select I --fix .
	@$(BIN)/ruff format .

# torch comes first and alone, so that its build (CPU or GPU, by your package index) is settled before anything asks for it.
# Build isolation is off because it would build with a setuptools that no constraint names.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python=$$($(FIND_PYTHON)) && "$$python" -m venv $(VENV); }
	@echo "Installing the versions of constraints.txt into $(VENV) (once; some minutes on a slow line) ..." >&2
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt setuptools torch
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

.venv-zoo/.installed: pyproject.toml Makefile
	@test -x .venv-zoo/bin/python || { python=$$($(FIND_PYTHON)) && "$$python" -m venv .venv-zoo; }
	@echo "Installing $(ZOO) into .venv-zoo (once; some minutes on a slow line) ..." >&2
	@.venv-zoo/bin/python $(PIP_INSTALL) setuptools hypothesis pytest $(ZOO)
	@.venv-zoo/bin/python $(PIP_INSTALL) --no-build-isolation -e .
	@touch $@

pages: $(STAMP) ## write docs/recipes.md and docs/commands.md from the code
	@$(BIN)/ofa recipes --markdown > docs/recipes.md
	@$(BIN)/ofa --markdown > docs/commands.md

# The theme would print an advertisement for its successor.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP) ## the site, into site/; a broken link or docstring fails
	@$(BIN)/mkdocs build

docs-serve: $(STAMP) ## the site while you write, on http://127.0.0.1:8000
	@$(BIN)/mkdocs serve

tour: $(STAMP) ## run docs/tour.ipynb and keep what its cells show
	@$(BIN)/python docs/run_tour.py

screens: $(STAMP) ## draw the pictures of results in docs/ anew; those of a demo after `make demo`
	@$(BIN)/python docs/screens.py $(if $(wildcard demo/report.html),--demo demo)

# The wheel is built of the source archive; what is in both, and that the wheel works alone, is tested first.
release: $(STAMP) ## the source archive and the wheel, tested, into dist/
	@$(BIN)/python -m pytest -q -m slow tests/test_release.py
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation

# What torch needs on a machine with a GPU (nvidia-*, triton) is pinned by torch itself and differs from machine to machine.
constraints: ## choose the newest versions anew and write constraints.txt
	@python=$$($(FIND_PYTHON)) && folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	"$$python" -m venv "$$folder" && \
	"$$folder/bin/python" $(PIP_INSTALL) --upgrade setuptools torch==$(TORCH) && \
	"$$folder/bin/python" $(PIP_INSTALL) --no-build-isolation -e '.[$(EXTRAS)]' && \
	"$$folder/bin/python" -m pip freeze --all --exclude-editable > "$$folder/frozen" && \
	{ echo "# The exact version of everything that 'make' installs. Regenerate with: make constraints"; \
	  sed -E -e '/^(pip|cuda-.*|nvidia-.*|triton)==/d' -e 's/\+[a-z0-9.]+$$//' "$$folder/frozen"; } > constraints.txt

clean: ## remove caches, builds, site/ and demo/; the environment stays
	@rm -rf build demo dist site docs/tour *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
