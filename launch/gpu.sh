#!/usr/bin/env bash
# Measures on an accelerator, unattended: launch/gpu.sh PAIR OUT [flags of atspeed_jax.accelerator.run].
# PAIR: a packed pair (python -m launch.benchmark --suite=decode --workdir=RUN --pack=PAIR). OUT: where the results go.
# Needs no network and no data library. The same command goes on where it stopped. PYTHON names another Python.
set -euo pipefail
if [[ $# -lt 2 ]]; then
  sed -n 2,4p "${BASH_SOURCE[0]}" >&2
  exit 2
fi
pair=$(realpath -m "$1") out=$(realpath -m "$2")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$out"

# Lines come at once, and warnings of XLA do not bury them.
export PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
# A part of transformers shares the device with JAX.
export XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-.92}"
# A part that goes on, and parts that share programs, compile nothing twice.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-/tmp/atspeed_jax_xla}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

{
  date
  nvidia-smi -L 2>/dev/null || echo "no nvidia-smi here"
  "${PYTHON:-python3}" -m atspeed_jax.accelerator.run --pair="$pair" --out="$out" "$@"
} 2>&1 | tee -a "$out/log.txt"
