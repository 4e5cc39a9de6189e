#!/usr/bin/env bash
# Trains a small target and its draft on synthetic data, decodes, and writes a report. Arguments go to launch.pipeline.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# glibc backs XLA's buffers with huge pages (and other systems ignore it): see launch/README.md, "Huge pages".
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

say "running the whole pipeline on synthetic data into runs/quickstart (finished stages are skipped)"
.venv/bin/python -m launch.pipeline --config=configs/quickstart.py --workdir=runs/quickstart "$@"
say "the report, for a browser: $PWD/runs/quickstart/report.html"
