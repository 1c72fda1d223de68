# Targets for a fresh clone. They need Python 3.10 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# or lowest-direct: the lowest versions that pyproject.toml allows
RESOLUTION ?= highest

.PHONY: docs demo test test-all test-fast test-gpu lint install clean help package reduced targets accelerator-bundle
help:
	@echo "make demo       compare the shipped policy with other schedules on real data, from several rates"
	@echo "make test       lint, types and every test: under ten minutes on two cores"
	@echo "make test-all   every test, without lint and types"
	@echo "make test-fast  every test that takes less than some seconds: under two minutes"
	@echo "make test-gpu   the tests that need a CUDA GPU"
	@echo "make lint       ruff and mypy alone"
	@echo "make docs       the pages of documentation, in dist/site"
	@echo "make package    the source distribution and the wheel, checked, in dist"
	@echo "make reduced    the reduced version of every comparison, and docs/reduced.md (needs METALR_DATA)"
	@echo "make targets    every workload against its target, and docs/targets.md (needs METALR_DATA)"
	@echo "make accelerator-bundle    what benchmarks/accelerator.sh takes to a machine without a network (needs METALR_DATA)"

install: $(STAMP)
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "metalr needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) --version`: set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --resolution $(RESOLUTION) --editable '.[dev]'
	@touch $(STAMP)

# A small grid: the learned schedule beside two others from several initial rates, on digits, and on Adult with XGBoost
# where METALR_DATA has it or the hub can be reached.
ADULT := logs/data/adult
FETCH := HF_HUB_ETAG_TIMEOUT=3 HF_HUB_DOWNLOAD_TIMEOUT=10 timeout 20 $(BIN)/hf download --repo-type dataset \
	scikit-learn/adult-census-income --local-dir $(ADULT)
demo: $(STAMP)
	@rm -rf logs/compare/demo
	@adult="$${METALR_DATA:+$$METALR_DATA/adult}"; \
	if ! test -d "$$adult"; then adult=$(ADULT); $(FETCH) >/dev/null 2>&1 || adult=; fi; \
	test -n "$$adult" || echo "UCI Adult is neither in METALR_DATA nor to be fetched: digits alone"; \
	HF_HUB_OFFLINE=1 ADULT="$$adult" $(BIN)/python train.py compare --config configs/compare/demo/digits.yaml \
		$${adult:+--config configs/compare/demo/adult.yaml}

reduced targets: $(STAMP)
	@test -d "$$METALR_DATA" || { echo "METALR_DATA is not set: export METALR_DATA=<the folder of real data>"; exit 1; }
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.grids $@

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 3 --dist worksteal
test: lint test-all
test-all: $(STAMP)
	$(PYTEST) -m "not gpu"

test-fast: $(STAMP)
	$(PYTEST) -m "not gpu and not slow"

test-gpu: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m gpu tests/gpu

# BUNDLE names further options, such as a meta-training that goes on: BUNDLE="--checkpoint last.ckpt --configs a.yaml"
accelerator-bundle: $(STAMP)
	@test -d "$$METALR_DATA" || { echo "METALR_DATA is not set: export METALR_DATA=<the folder of real data>"; exit 1; }
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.accelerator.bundle $(BUNDLE)

# Built from the sources alone, checked, and the wheel imported where nothing but its own requirements is installed.
CLEAN := dist/clean
package: $(STAMP)
	rm -rf dist/*.whl dist/*.tar.gz $(CLEAN)
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/uv venv --quiet --python $(BIN)/python $(CLEAN)
	$(BIN)/uv pip install --quiet --python $(CLEAN)/bin/python dist/*.whl
	cd dist && clean/bin/python -c "import metalr; print(metalr.__version__, metalr.shipped_policies())"
	rm -rf $(CLEAN)

clean:
	rm -rf $(VENV) logs .pytest_cache .mypy_cache .ruff_cache dist
