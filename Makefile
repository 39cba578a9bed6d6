# `make demo` and `make test` need nothing before them; `make` alone says what there is.
TASK ?= stack_cubes
OBS ?= state
DEVICE ?= auto
ROLLOUTS ?= 50
EPISODES ?=
STEPS ?=
FRESH ?=

PY := .venv/bin/python

.PHONY: help setup demo test check format e2e clean

help:
	@echo "make demo    record, convert, train, serve, roll out: ends with a report and a success rate"
	@echo "             TASK=stack_cubes|pick_place  OBS=state|images  EPISODES=N  STEPS=N"
	@echo "             ROLLOUTS=N  DEVICE=auto|cpu|cuda  FRESH=1 (begin again)"
	@echo "make test    the tests (under 15 minutes on two cores)"
	@echo "make check   format, lint, strict types"
	@echo "make e2e     slower checks: the demo in small, and every command of the README"
	@echo "make format  put the code in order"
	@echo "make clean   remove what the demo made"

setup:
	@scripts/setup

demo: setup
	@$(PY) scripts/demo.py --task=$(TASK) --obs=$(OBS) --device=$(DEVICE) --rollouts=$(ROLLOUTS) \
		$(if $(EPISODES),--episodes=$(EPISODES)) $(if $(STEPS),--steps=$(STEPS)) $(if $(FRESH),--fresh)

test: setup
	@$(PY) -m pytest -m "not e2e"

e2e: setup
	@$(PY) -m pytest -m e2e -n 0

check: setup
	@.venv/bin/ruff format --check --quiet . || (echo "not in order; mend with: make format"; exit 1)
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/mypy tests scripts benchmarks

format: setup
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --fix .

clean:
	rm -rf demo
