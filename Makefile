# Two commands on a fresh clone: `make demo` and `make test`. Both need Python 3.10 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint install clean help
help:
	@echo "make demo   train on real data from an untuned learning rate with the shipped policy"
	@echo "make test   lint, types and every test"
	@echo "make lint   ruff and mypy alone"

install: $(STAMP)
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "metalr needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) --version`: set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[dev]'
	@touch $(STAMP)

# An untuned initial rate: fifty times the usual one.
DEMO := --config configs/digits.yaml --config configs/schedule/metalr.yaml --trainer.logger.init_args.name demo
demo: $(STAMP)
	@rm -rf logs/demo
	$(BIN)/python train.py fit $(DEMO) --optimizer.init_args.lr 5.0
	$(BIN)/python train.py test $(DEMO) --ckpt_path logs/demo/version_0/checkpoints/last.ckpt
	@echo "Look at it: $(BIN)/tensorboard --logdir logs/demo"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

clean:
	rm -rf $(VENV) logs .pytest_cache .mypy_cache .ruff_cache dist
