#!/usr/bin/env bash
# Runs a main on all workers of a Cloud TPU VM, waits for it, and ends with its exit code.
#
#   TPU_NAME=pod ZONE=us-east5-b launch/pods/tpu_vm.sh [--dry_run] \
#     launch.pipeline -- --config=configs/lcrec_small.py --workdir=/mnt/runs/beauty --data_dir=/mnt/beauty
#
# Every worker has this clone in CODE_DIR with a .venv (launch/setup.sh, then jax[tpu]). The
# workdir lies on storage that all workers mount. Ctrl-C ends the waiting, not the main; this
# script, run again, first waits for that main.
set -euo pipefail

TPU_NAME=${TPU_NAME:-}
ZONE=${ZONE:-}
PROJECT=${PROJECT:-}                 # empty: project of gcloud's configuration
MAX_RESTARTS=${MAX_RESTARTS:-100}
PAUSE=${PAUSE:-60}                   # seconds before a restart
CODE_DIR=${CODE_DIR:-atspeed_jax}    # on the workers, relative to the home directory
PYTHON=${PYTHON:-.venv/bin/python}   # relative to CODE_DIR
SETUP=${SETUP:-}                     # shell commands before the main, such as 'export XLA_FLAGS=...'
EXTRA_FLAGS=${EXTRA_FLAGS:-}         # more options of gcloud, such as '--tunnel-through-iap --quiet'

# shellcheck source=launch/pods/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
require TPU_NAME ZONE CODE_DIR PYTHON
whole MAX_RESTARTS PAUSE
absolute_paths

# The lock: gcloud runs a command again when its connection breaks, and so does the loop
# below, while the first main may still run. The second main waits for the first one to end.
# Then it finds finished stages, or continues. exec: the process that holds the lock is the
# process that gets SIGTERM.
lock='exec 9>~/.atspeed_jax.lock && flock 9'
command="$lock && ${SETUP:+$SETUP && }cd $(quoted "$CODE_DIR") && exec $(program)"
run=(gcloud compute tpus tpu-vm ssh "$TPU_NAME" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"} --worker=all)
read -ra extra <<<"$EXTRA_FLAGS"
run+=(${extra[@]+"${extra[@]}"} "--command=$command")

if [[ -n $DRY_RUN ]]; then
  quoted "${run[@]}"
  printf '\n# again, at most %s times, while it ends with %s or 255\n' "$MAX_RESTARTS" "$RESTART"
  exit
fi
tool gcloud "https://cloud.google.com/sdk/docs/install"
for ((restarts = 0; ; restarts++)); do
  status=0
  "${run[@]}" || status=$?
  # 255: ssh lost a worker, for example during maintenance of its host.
  ((status == RESTART || status == 255)) || exit "$status"
  ((restarts < MAX_RESTARTS)) || break
  say "ended with $status; restart $((restarts + 1)) of $MAX_RESTARTS in $PAUSE s"
  sleep "$PAUSE"
done
say "ended with $status after $MAX_RESTARTS restarts"
exit "$status"
