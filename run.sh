#!/usr/bin/env bash
# Trains on this machine's nodes: ./run.sh FIRST LAST SETTING SAMPLES [CONFIG] [key=value ...]
# Nodes FIRST to LAST - 1 are started here; SETTING is baseline, random, non-ca-partial, ca-partial or joint.
# With --host it prints a line that starts the others on another machine (docs/machines.md).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
"$here/setup.sh"
cd "$here"
# The launcher must have no threads when it forks the nodes; these choose their own (skippipe/runtime/share.py).
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
exec .venv/bin/python -m skippipe run "$@"
