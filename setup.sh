#!/usr/bin/env bash
# Makes .venv and installs SkipPipe and its requirements into it; does nothing when they are there already.
#   ./setup.sh [--dev]      --dev adds what the tests and .ci/run need
#   ./setup.sh --torch      installs nothing, prints which torch it would ask pip for
# PYTHON names the interpreter (3.11 or newer; default: python3.11, or the first that is found).
# SKIPPIPE_TORCH=cpu or cuda names the build of torch (default: what .venv has, or else cuda if nvidia-smi works here).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

wanted=(requirements.txt)
case "${1:-}" in
    "" | --torch) ;;
    --dev) wanted+=(requirements-dev.txt) ;;
    *) echo "error: unknown argument $1; usage: ./setup.sh [--dev | --torch]" >&2; exit 2 ;;
esac

# The version stands in requirements.txt, which any build of it satisfies.
torch_version="$(sed -n 's/^torch==//p' requirements.txt)"
installed_torch="$(cat .venv/installed/torch 2>/dev/null || true)"
choose_build() {
    case "${SKIPPIPE_TORCH:-}" in
        cpu | cuda) echo "$SKIPPIPE_TORCH" ;;
        "")
            if [ -n "$installed_torch" ]; then
                echo "${installed_torch%% *}"
            elif nvidia-smi >/dev/null 2>&1; then
                echo cuda
            else
                echo cpu
            fi
            ;;
        *) echo "error: SKIPPIPE_TORCH is $SKIPPIPE_TORCH; give cpu or cuda" >&2; exit 2 ;;
    esac
}
build="$(choose_build)"
# For Linux the package index has the build with CUDA, whose version has no suffix: === takes no other.
if [ "$build" = cuda ]; then torch="torch===$torch_version"; else torch="torch==$torch_version+cpu"; fi
if [ "${1:-}" = --torch ]; then
    echo "$torch"
    exit 0
fi

# What is installed is remembered by the contents of the files that ask for it, one stamp a file.
stamp() { cat "$1" pyproject.toml | cksum | tr ' ' '-'; }
missing=()
for file in "${wanted[@]}"; do
    [ -e ".venv/installed/$file-$(stamp "$file")" ] || missing+=("$file")
done
[ ${#missing[@]} -eq 0 ] && [ "$installed_torch" = "$build $torch_version" ] && exit 0

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
install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
echo "installing ${missing[*]:-torch} into .venv, with torch for $build (some minutes the first time)" >&2
# Until all of it is there, nothing is known of it.
rm -f .venv/installed/torch
if ! install "$torch"; then
    [ "$build" = cpu ] || exit 1
    echo "pip finds no build of torch $torch_version without CUDA (PyTorch's own index has one, see PIP_EXTRA_INDEX_URL);" \
        "installing the one with CUDA, which is larger and computes on a CPU too" >&2
    install "torch==$torch_version"
fi
if [ "$build" = cuda ] && ! .venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    echo "error: the torch $torch_version that pip found for this machine has no CUDA; set SKIPPIPE_TORCH=cpu" >&2
    exit 1
fi
for file in "${missing[@]}"; do
    install -r "$file"
done
install --no-deps --editable .
mkdir -p .venv/installed
echo "$build $torch_version" >.venv/installed/torch
for file in "${missing[@]}"; do
    touch ".venv/installed/$file-$(stamp "$file")"
done
