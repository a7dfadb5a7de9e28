# Short names for what one does every day; each is one command, which works without just too.
# just is in .venv/bin once `./scripts/setup.sh` has run.

set positional-arguments

# What there is
default:
    @just --list

# Install what this machine lacks: Debian's packages, and the Python packages into .venv
setup:
    ./scripts/setup.sh

# The tests that need no service, in less than a minute; arguments go to pytest
test *arguments:
    ./scripts/test.sh --fast "$@"

# Every test, on SQLite and on PostgreSQL, with all services; arguments go to pytest
test-all *arguments:
    ./scripts/test.sh "$@"

# What is wrong by ruff's rules
lint:
    .venv/bin/ruff check .

# Lay out every Python file as CI wants it
format:
    .venv/bin/ruff format .

# What is wrong by mypy
types:
    .venv/bin/mypy .

# Which package may import which: the contracts in pyproject.toml
imports:
    .venv/bin/lint-imports --no-cache --no-logo

# All that CI runs
ci:
    ./.ci/run

# Set up and start Chef in the foreground
start *arguments:
    ./scripts/start.sh "$@"
