# Every target can be run again at any time; it does only what is missing.
PYTHON ?= python3
BIN := .venv/bin
export ANSIBLE_NOCOLOR ?=
# Ansible needs UTF-8; and whoever forbids byte code pays for it with every process.
export LC_ALL := C.UTF-8
export PYTHONDONTWRITEBYTECODE :=

# Probes of emulated machines have seconds to answer, so no clusters run beside these.
MACHINES := $(addprefix tests/e2e/test_,preflight.py preflight_controller.py lab_vm.py remediate.py verify_vm.py agent_audit.py)
# Long, and made of steps that other tests take too.
STORIES := $(addprefix tests/e2e/test_,first_hour.py lifecycle_vm.py agent_minute.py agent_kernels.py agent_runtimes.py agent_audit_service.py agent_suspend.py exec_agent_libbpf.py)

# The longest first, whatever number of tests they have: three files are worked on at a time.
LONGEST := $(addprefix tests/e2e/test_,faults.py audit_policy.py audit_policy_faults.py site.py)
CLUSTERS := $(LONGEST) $(filter-out $(LONGEST) $(MACHINES) $(STORIES),$(wildcard tests/e2e/test_*.py))

# A fresh Debian may be upgrading itself.
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600

.DEFAULT_GOAL := help
.PHONY: help setup demo agent test test-stories test-unit lint mutation bench collection lab-clean clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What a user runs. Debian keeps venv apart from Python; root gets it installed, others are told.
.venv/.users: requirements.txt pyproject.toml
	@echo "== Python environment in .venv (what users run)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then echo "installing python3-venv"; \
	    $(APT) update && $(APT) install -y --no-install-recommends python3-venv >/dev/null; \
	  else echo "python3-venv is missing: sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/.developers: .venv/.users requirements-dev.txt
	@echo "== Python environment in .venv (what the gates and tests need)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

setup: .venv/.developers ## Make the Python environment in .venv

demo: .venv/.users agent ## From an unfit node to a session shown (half an hour the first time)
	@$(BIN)/python -m lab demo

# The agent needs nothing of .venv: it is built from its sources, with clang.
agent: build/exectrail-agent.pyz ## Build the agent that runs on nodes (root gets clang installed)

build/exectrail-agent.pyz: packaging/agent.py $(shell find src/exectrail_agent -name '*.py' -o -name '*.[ch]')
	@echo "== the agent in $@"
	@command -v clang >/dev/null && command -v llvm-strip >/dev/null && test -e /usr/include/bpf/bpf_helpers.h || test "$$(id -u)" != 0 || { \
	  echo "installing clang, llvm and libbpf-dev"; \
	  $(APT) update && $(APT) install -y --no-install-recommends clang llvm libbpf-dev >/dev/null; }
	@$(PYTHON) packaging/agent.py -o $@

test: lint test-unit agent ## Set up everything and pass every gate and test but the stories
	@echo "== integration tests (this machine's kernel, sshd, containers, browser)"
	@$(BIN)/python -c 'from lab.cluster import host; host.ensure()'
	@$(BIN)/pytest -n 2 --dist loadfile tests/integration
	@echo "== end-to-end tests on virtual machines"
	@$(BIN)/pytest -n 2 --dist loadfile $(MACHINES) --durations=15
	@echo "== end-to-end tests on clusters"
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(CLUSTERS) --durations=15

test-stories: setup agent ## Run the long stories: the first hour, Debian releases and their kernels (an hour)
	@$(BIN)/python -c 'from lab.cluster import host; host.ensure()'
	@$(BIN)/pytest $(STORIES)

test-unit: .venv/.developers ## Run the tests that need nothing but Python (under a minute)
	@echo "== unit tests"
	@$(BIN)/pytest -n 2 -q tests/unit

lint: .venv/.developers ## Run every static gate
	@echo "== ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "== mypy"
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version 3.10 src/exectrail_agent
	@$(BIN)/mypy --allow-subclassing-any plugins/action plugins/callback plugins/plugin_utils
	@echo "== yamllint"
	@$(BIN)/yamllint --strict .
	@echo "== what ships to nodes runs on Python 3.6, the agent on 3.8"
	@$(BIN)/vermin --quiet --no-tips --violations -t=3.6- plugins/modules src/exectrail/status/on_node.py src/exectrail/nodes/launch.py
	@$(BIN)/vermin --quiet --no-tips --violations -t=3.8- src/exectrail_agent
	@for python in python3.6 "$$HOME"/.pyenv/versions/3.6.*/bin/python; do \
	  if command -v "$$python" >/dev/null && "$$python" -c '' 2>/dev/null; then \
	    for script in node_evidence installation_evidence; do \
	      "$$python" -B plugins/modules/$$script.py >/dev/null || exit 1; done; break; fi; done
	@echo "== role defaults are the documented options"
	@$(BIN)/pytest -q tests/unit/test_roles.py >/dev/null
	@echo "== playbook syntax"
	@for playbook in playbooks/*.yml; do \
	  $(BIN)/ansible-playbook --syntax-check -i localhost, "$$playbook" >/dev/null || exit 1; done
	@echo "== ansible-lint"
	@PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_COLLECTIONS_PATH=playbooks/collections ansible-lint --offline -q

mutation: .venv/.developers ## Change every comparison of the evaluator; some test must notice each
	@$(BIN)/python tests/mutation/run.py

bench: .venv/.developers ## Measure what docs/performance.md quotes
	@$(BIN)/python -m bench

collection: .venv/.users ## Build the Ansible collection into dist/
	@$(BIN)/ansible-galaxy collection build --force --output-path dist

lab-clean: .venv/.users ## End this checkout's machines and clusters, and empty the cache
	@$(BIN)/python -m lab vm down
	@$(BIN)/python -m lab cluster down
	@$(BIN)/python -m lab vm clean

clean: ## Remove what make has made here (not the image cache)
	@rm -rf .venv build dist reports artefacts .ansible .mypy_cache .ruff_cache .hypothesis
