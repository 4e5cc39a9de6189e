#!/usr/bin/env bash
# Trains a small target and its draft on synthetic data, decodes, and writes a report. Arguments go to launch.pipeline.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

say "running the whole pipeline on synthetic data into runs/quickstart (finished stages are skipped)"
.venv/bin/python -m launch.pipeline --config=configs/tiny.py --workdir=runs/quickstart "$@"
say "the report: $PWD/runs/quickstart/report.md"
