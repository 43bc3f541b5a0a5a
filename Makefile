PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-long lint clean

train: .venv/ready  ## the main job: NCF on the built-in data set
	$(BIN)/python scripts/train.py --model=ncf

test: .venv/ready lint  ## lint, types and tests
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

test-long: .venv/ready  ## jobs of several processes that are killed and go on; examples at random
	$(BIN)/python -m pytest -m cluster
	$(BIN)/python -m pytest --hypothesis-profile=default tests/data

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	@echo "making .venv: about a minute, 3 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv runs build *.egg-info
