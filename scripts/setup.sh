#!/usr/bin/env bash
# Install what this machine lacks to run, test and check Chef: Debian packages, and Python packages into .venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec "$PYTHON" -m scripts.packages set-up tests
