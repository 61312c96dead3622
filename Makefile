PYTHON ?= python3
BIN := .venv/bin
# Threads of native libraries would fight for the cores with the workers; stages set their own count.
export OMP_NUM_THREADS ?= 1

.PHONY: run test test-s3 check bench faults faults-distributed clean

run: .venv/run        ## run the quickstart: digits, long-tailed, to an audited int8 package
	$(BIN)/vitops run quickstart

test: .venv/dev       ## run every test, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

test-s3: .venv/dev    ## the S3 tests against a real server, Ceph's radosgw (Debian packages; infra/radosgw.sh names them)
	infra/radosgw.sh sh -c '$(BIN)/pytest tests/integration/s3 --s3-endpoint "$$S3_ENDPOINT"'

check: .venv/dev      ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy vitops
	$(BIN)/lint-imports

bench: .venv/bench    ## every speed benchmark, alone on the machine; each prints one JSON line at its end
	missed=; for script in benchmarks/speed/*.py; do echo "$$script"; $(BIN)/python $$script || missed="$$missed $$script"; done; \
	test -z "$$missed" || { echo "not held:$$missed"; exit 1; }

faults: .venv/dev     ## kill or cut the power at every disk operation, kill at random and in the real flow; compare
	PYTHONPATH=tests $(BIN)/python tests/faults/campaign.py

faults-distributed: .venv/dev  ## lose workers, nodes, the flow, Prefect's server; stop the command anywhere; compare
	PYTHONPATH=tests $(BIN)/python tests/faults/distributed.py

clean:                ## remove the environment and caches; the store with its ledger (.vitops) and DVC's cache stay
	rm -rf .venv .prefect .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip  # old resolvers take minutes over this many pins
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

.venv/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip  # old resolvers take minutes over this many pins
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,s3]'
	touch .venv/run $@

.venv/bench: .venv/dev benchmarks/peers.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/pip install --quiet --no-deps -r benchmarks/peers.txt
	touch $@
