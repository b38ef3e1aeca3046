# Everything runs in one virtual environment, which .ci/setup makes and keeps up to date.
VENV ?= .venv
export VENV
bin := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak mutants setup setup-dev

help: ## Say what can be made (this list)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## Judge the demonstration pairs with a small model, on any machine
	@$(bin)/steelyard demo --run $(or $(RUN),runs/demo)

test: setup-dev ## Run the tests, in up to four processes
	$(bin)/pytest --numprocesses=logical --maxprocesses=4 $(ARGS)

lint: setup-dev ## Check style, types and Dockerfiles
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/hadolint docker/*.Dockerfile

bench: setup-dev ## Measure the kernels and the engine
	$(bin)/python benchmarks/run.py $(ARGS)

soak: setup-dev ## Break runs on purpose for some minutes and audit what is left
	$(bin)/python benchmarks/soak.py $(ARGS)

mutants: setup-dev ## See whether tests notice changes of a module: ARGS=plan/keys
	$(bin)/python tests/mutation/check.py $(ARGS)

setup:
	@.ci/setup demo

setup-dev:
	@.ci/setup dev
