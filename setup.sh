#!/usr/bin/env bash
# Makes .venv and installs SkipPipe and its requirements into it; does nothing when they are there already.
#   ./setup.sh [--dev]      --dev adds what the tests and .ci/run need
# PYTHON names the interpreter (3.11 or newer; default: python3.11, or the first that is found).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wanted=(requirements.txt)
case "${1:-}" in
    "") ;;
    --dev) wanted+=(requirements-dev.txt) ;;
    *) echo "error: unknown argument $1; usage: ./setup.sh [--dev]" >&2; exit 2 ;;
esac

# What is installed is remembered by the contents of the files that ask for it, one stamp a file.
stamp() { cat "$1" pyproject.toml | cksum | tr ' ' '-'; }
missing=()
for file in "${wanted[@]}"; do
    [ -e ".venv/installed/$file-$(stamp "$file")" ] || missing+=("$file")
done
[ ${#missing[@]} -eq 0 ] && exit 0

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer found; install one or set PYTHON=/path/to/python" >&2
    exit 1
}

[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
echo "installing ${missing[*]} into .venv (some minutes the first time)" >&2
for file in "${missing[@]}"; do
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$file"
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
mkdir -p .venv/installed
for file in "${missing[@]}"; do
    touch ".venv/installed/$file-$(stamp "$file")"
done
