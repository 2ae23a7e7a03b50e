# `make demo`, `make train` and `make test` install what they need into .venv and install nothing the second time.
PYTHON   ?= python3
BACKEND  ?= torch
# e.g. PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu' for PyTorch without CUDA
PIP_ARGS ?=
# e.g. ARGS='--epoch_size 48 --seed 2'
ARGS     ?=
BIN      := .venv/bin
INSTALL  := $(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS)
# jobs of their own on every core; their arithmetic needs no threads besides
ONE      := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo train test bench notebooks lab book clean readme

help: ## this list
	@grep -hE '^[a-z ]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+)[a-z ]*:.*## (.*)/  make \1\t\2/'

demo: .venv/installed-demo-$(BACKEND) ## a trained detector looks at photographs; pictures in runs/
	$(BIN)/python -m ssd_nb.demo --backend $(BACKEND) $(ARGS)

train: .venv/installed-$(BACKEND) ## draw the toy scenes, train on them in minutes, evaluate; results in runs/
	$(BIN)/python -m ssd_nb.train --preset tiny --backend $(BACKEND) $(ARGS)

test: .venv/installed-test ## run all notebooks and all tests
	$(ONE) $(BIN)/nbdev_test --n_workers 2
	$(ONE) $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile --durations=10 tests

bench: .venv/installed-test ## measure speed beside plain PyTorch; nbs/images/bench.json and a picture
	$(BIN)/python scripts/bench.py $(ARGS)

readme: .venv/installed-test ## write README.md from nbs/index.ipynb
	$(BIN)/python scripts/make_readme.py

lab notebooks: .venv/installed-test ## open the book in JupyterLab
	$(BIN)/jupyter lab nbs

book: .venv/installed-book ## write the book as a web site into _book; open _book/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## bring library and notebooks in step: export and strip
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean

.venv/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else f"Python 3.10 to 3.12 is needed, this is {v[0]}.{v[1]}; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed-torch .venv/installed-mindspore: .venv/installed-%: constraints.txt settings.ini setup.py | .venv/bin/python
	@echo 'Installing ssd_nb with $* into .venv; this takes some minutes, once.'
	$(INSTALL) --editable '.[$*]'
	@touch $@

.venv/installed-demo-torch .venv/installed-demo-mindspore: .venv/installed-demo-%: .venv/installed-% constraints.txt settings.ini setup.py
	$(INSTALL) --editable '.[$*,demo]'
	@touch $@

.venv/installed-book: constraints.txt settings.ini setup.py | .venv/bin/python
	@echo 'Installing what writes the web site into .venv; this takes a minute, once.'
	$(INSTALL) --editable '.[book]'
	@touch $@

.venv/installed-test: constraints.txt settings.ini setup.py | .venv/bin/python
	@echo 'Installing everything the notebooks and tests need into .venv; this takes some minutes, once.'
	$(INSTALL) --editable '.[torch,mindspore,tensorboard,export,weights,demo,book,dev]'
	@touch $@
