#!/usr/bin/env bash
# Trains a small target and its draft on synthetic data, decodes, and writes a report. Arguments go to launch.pipeline.
# With --data=log.csv [--items=items.csv]: does the same for your interactions, and writes lists of named items; arguments
# go to launch.own.
set -euo pipefail
from=$PWD  # setup.sh goes to the repository; files are named from here
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# glibc backs XLA's buffers with huge pages (and other systems ignore it): see launch/README.md, "Huge pages".
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

own=false arguments=()
for argument in "$@"; do
  if [[ $argument =~ ^--(data|items|workdir)=([^/].*)$ ]]; then
    value=${BASH_REMATCH[2]}
    if [[ ! -e $from/$value ]]; then  # several files
      value=${value//,/,$from/}
      value=${value//,$from\/\//,/}
    fi
    argument="--${BASH_REMATCH[1]}=$from/$value"
  fi
  [[ $argument != --data=* ]] || own=true
  arguments+=("$argument")
done
if $own; then
  exec .venv/bin/python -m launch.own "${arguments[@]}"
fi

say "running the whole pipeline on synthetic data into runs/quickstart (finished stages are skipped)"
.venv/bin/python -m launch.pipeline --config=configs/quickstart.py --workdir=runs/quickstart ${arguments[@]+"${arguments[@]}"}
say "the report, for a browser: $PWD/runs/quickstart/report.html"
