# Everything that a fresh clone needs: make, Python 3.11 and pip. See BUILD.md.
PYTHON ?= python3.11
CHECK := import sys; sys.version_info[:2] == (3, 11) and sys.version_info >= (3, 11, 4) or sys.exit("Python 3.11.4 or a \
later 3.11 is needed, and this is " + sys.version.split()[0] + "; name another one: make PYTHON=PATH")
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Two test processes, 5 GB each. Each runs whole files, so that a file's tests share its fixtures. Long files come first
# (tests/conftest.py), so that neither process waits for the other at the end.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: test end-to-end test-all fuzz demo lint wheel clean

# Without oneDNN, whose passes over every graph that a test traces take a fifth of the time; the other targets have it.
test: $(INSTALLED)
	TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/python -m pytest $(WORKERS)

# End-to-end tests on tiny data, and tests that train or stack several times: shards to submission, pipelines, examples,
# old runs.
end-to-end: $(INSTALLED)
	$(BIN)/python -m pytest -m "end_to_end and not slow" $(WORKERS)

# All tests, including slow ones.
test-all: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow or not slow" $(WORKERS)

# The tests with random inputs, with a fresh seed. Set YT8M_TEST_SEED to the seed that a failure prints to repeat it.
# YT8M_MUTATED_INPUTS is the total number of mutated files.
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

# Reinstalled whenever the dependencies change.
$(INSTALLED): setup.py pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c '$(CHECK)'  # pip would try versions of everything for minutes
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
