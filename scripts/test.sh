#!/usr/bin/env bash
# Set up this machine and run every test, on SQLite and on PostgreSQL. `--fast`: only those that need no service.
# All other arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec "$PYTHON" -m scripts.run_tests "$@"
