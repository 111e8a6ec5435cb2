# Two commands on a machine with Python >= 3.11 and make: `make run` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-next soak bench docs setup check ui lock

run: setup          ## the main job on generated members
	$(BIN)/churnlab pipeline

test: setup         ## the whole test suite
	$(BIN)/python -m pytest -n 3 -q

test-next:          ## the suite under the newest and pre-release dependencies, in .venv-next, made anew
	$(PYTHON) -m venv --clear .venv-next
	.venv-next/bin/python -m pip install --quiet --disable-pip-version-check --pre -e '.[test]'
	.venv-next/bin/python -m pytest -n 3 -q

soak: setup         ## the long form of kills, races, sweeps, docs and simulations (hours), each time with another seed; KILLS=10 for a tenth
	CHURNLAB_SOAK=$(or $(KILLS),100) CHURNLAB_SEED=$${CHURNLAB_SEED:-$$(date +%s)} \
	$(BIN)/python -m pytest -n 2 --dist load -v -rP tests/tuning tests/registry/test_promotions.py \
	tests/cli/test_sweeps.py tests/docs tests/faults tests/simulations tests/stories/test_losses.py tests/stories/test_tracking_server.py tests/serving/test_current.py

bench: setup        ## tuning, segmenting and training next to the plain ways, sweeps, coverage of intervals; see benchmarks/README.md
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/segmenting.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/sweeping.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/coverage.py --short

check: setup        ## format, lint, types, import contract, lock file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! grep -n '://' requirements.lock || { echo 'requirements.lock names an address'; exit 1; }

docs: setup         ## docs/reference/ from the code and conf/
	$(BIN)/python docs/make_reference.py

setup: .venv/made   ## .venv from requirements.lock

ifneq ($(shell cat .venv/made 2>/dev/null),$(CURDIR))
.PHONY: .venv/made  # in a folder that was renamed or copied, its scripts name the old place
endif

.venv/made: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "churnlab needs Python 3.11 or newer; say which with make PYTHON=...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	printf '%s' "$(CURDIR)" > $@

ui: setup           ## the MLflow UI on the local store
	tools="$$PWD/$(BIN)"; cd "$${CHURNLAB_HOME:-.}" && "$$tools/mlflow" ui --backend-store-uri sqlite:///mlflow.db

lock:               ## requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra test --universal --generate-hashes --no-header --quiet -o requirements.lock
