#!/usr/bin/env bash
# All that a GPU is needed for, in at most ten minutes: tests/gpu and benchmarks/gpu.py. What they say goes into a folder.
#   tests/gpu/run.sh OUT      PYTHON names the interpreter (default: .venv/bin/python)
set -euo pipefail
out="$(mkdir -p "${1:?usage: tests/gpu/run.sh OUT}" && cd "$1" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-.venv/bin/python}"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
status=0
timeout 180 "$python" benchmarks/gpu.py --out "$out/gpu.md" 2>&1 | tee "$out/benchmark.txt" || status=1
# Alone: what runs beside them would share the GPU's time and memory.
alone=tests/gpu/test_memory.py::test_a_process_takes_no_more_beside_tensors_than_is_estimated
timeout 90 "$python" -m pytest -n 0 -v tests/gpu/test_device.py "$alone" 2>&1 | tee "$out/device.txt" || status=1
timeout 310 "$python" -m pytest -n 4 -v --durations=0 --ignore=tests/gpu/test_device.py --deselect="$alone" tests/gpu 2>&1 | tee "$out/tests.txt" || status=1
exit "$status"
