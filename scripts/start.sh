#!/usr/bin/env bash
# Set up this machine, start Chef in the foreground, and build the examples. `--help` lists the options.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec "$PYTHON" -m scripts.quickstart "$@"
