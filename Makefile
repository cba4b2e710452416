# Everything that a fresh clone needs: make, Python 3.11 and pip. See BUILD.md.
PYTHON ?= python3.11
CHECK := import sys; sys.version_info[:2] == (3, 11) and sys.version_info >= (3, 11, 4) or sys.exit("Python 3.11.4 or a \
later 3.11 is needed, and this is " + sys.version.split()[0] + "; name another one: make PYTHON=PATH")
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Two test processes, 5 GB each; a file's tests share one, and what its fixtures made.
# Whole files to each of two processes, the long ones first (tests/conftest.py): neither waits for the other at the end.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: test end-to-end test-all fuzz demo lint wheel clean

# Without oneDNN, whose passes over every graph that a test traces take a fifth of the time; the other targets have it.
test: $(INSTALLED)
	TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/python -m pytest $(WORKERS)

# Whole ways on tiny data, and what trains or stacks several times: shards to submission, pipelines, examples, old runs.
end-to-end: $(INSTALLED)
	$(BIN)/python -m pytest -m "end_to_end and not slow" $(WORKERS)

# Everything: also what takes long.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow or not slow" $(WORKERS)

# The tests with random inputs, with fresh ones; a failure is repeated with the YT8M_TEST_SEED that it prints. Of mutated
# files there are so many in all.
fuzz: $(INSTALLED)
	YT8M_TEST_SEED=random YT8M_MUTATED_INPUTS=10000 $(BIN)/python -m pytest -m "random and not slow" $(WORKERS)

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py --output_dir=demo_output

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Builds the wheel, installs it outside the checkout, and uses it there.
wheel: $(INSTALLED)
	.ci/wheel

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output

# Installed again whenever the dependencies change.
$(INSTALLED): setup.py pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c '$(CHECK)'  # pip would try versions of everything for minutes
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
