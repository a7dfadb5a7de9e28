# Shared by start.sh, test.sh and .ci/run: changes to the repository's folder, and finds a Python for the set-up.
# The set-up itself is in Python (standard library only), so that it can be type-checked and tested.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Prints the first suitable Python; a version manager's shim may be on PATH but not run.
find_python() {
    local name
    for name in python3.11 python3 python3.12 python3.13 python3.14 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    echo "Python 3.11 or newer is missing: no python3.11 or python3 on PATH runs. Install it and run this again." >&2
    return 1
}

PYTHON=$(find_python) || exit 1
