# `make demo` and `make test` need nothing before them; `make` alone says what there is.
TASK ?= stack_cubes
OBS ?= state
DEVICE ?= auto
ROLLOUTS ?= 50
EPISODES ?=
STEPS ?=
FRESH ?=

PY := .venv/bin/python

# What the images are labelled with, and say in the provenance of what they make.
COMMIT = $(shell git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMPOSE = docker compose --file docker/docker-compose.yml

.PHONY: help setup demo test check docs format e2e clean docker-build docker-demo docker-test

help:
	@echo "make demo    record, convert, train, serve, roll out: ends with a report and a success rate"
	@echo "             TASK=stack_cubes|pick_place  OBS=state|images  EPISODES=N  STEPS=N"
	@echo "             ROLLOUTS=N  DEVICE=auto|cpu|cuda  FRESH=1 (begin again)"
	@echo "make test    the tests (10 to 15 minutes on two cores)"
	@echo "make check   format, lint, strict types, the rooms and their imports"
	@echo "make docs    the documentation as a site, with an API reference: site/index.html"
	@echo "make e2e     slower checks: the demo in small, and every command of the README"
	@echo "make docker-build, docker-demo, docker-test    the same in containers: docs/docker.md"
	@echo "make format  put the code in order"
	@echo "make clean   remove what the demo and the documentation made"

setup:
	@scripts/setup

demo: setup
	@$(PY) scripts/demo.py --task=$(TASK) --obs=$(OBS) --device=$(DEVICE) --rollouts=$(ROLLOUTS) \
		$(if $(EPISODES),--episodes=$(EPISODES)) $(if $(STEPS),--steps=$(STEPS)) $(if $(FRESH),--fresh) \
		$(if $(TRAIN_SEED),--train_seed=$(TRAIN_SEED))

test: setup
	@$(PY) -m pytest -m "not e2e and not docker"

e2e: setup
	@$(PY) -m pytest -m e2e -n 2

check: setup
	@.venv/bin/ruff format --check --quiet . || (echo "files need formatting; run: make format"; exit 1)
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/mypy tests scripts benchmarks examples
	@.venv/bin/lint-imports --no-cache --no-logo

# Strict: a link that leads nowhere is an error. The notice is of the theme's end of life in 2027.
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict
	@echo "open site/index.html; its search wants a server: $(PY) -m http.server --directory site"

format: setup
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --fix .

docker-build:
	@IMAGE_COMMIT=$(COMMIT) IMAGE_VERSION=$(VERSION) $(COMPOSE) --profile client --profile s3 build \
		positronic-to-lerobot client object-store

docker-demo: docker-build
	@$(COMPOSE) --profile demo run --rm demo --task=$(TASK) --obs=$(OBS) --device=$(DEVICE) \
		--rollouts=$(ROLLOUTS) $(if $(EPISODES),--episodes=$(EPISODES)) \
		$(if $(STEPS),--steps=$(STEPS)) $(if $(FRESH),--fresh) \
		$(if $(TRAIN_SEED),--train_seed=$(TRAIN_SEED))

docker-test: setup
	@$(PY) -m pytest -m docker -n 0

clean:
	rm -rf demo site
