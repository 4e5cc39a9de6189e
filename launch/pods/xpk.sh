#!/usr/bin/env bash
# Submits a main as an XPK workload: TPU slices of a GKE cluster. Prints the workload's name.
#
#   CLUSTER=pods TPU_TYPE=v5litepod-16 IMAGE=gcr.io/me/atspeed_jax launch/pods/xpk.sh [--dry_run] \
#     launch.pipeline -- --config=configs/lcrec_small.py --workdir=/mnt/runs/beauty --data_dir=/mnt/beauty
#
# IMAGE holds this code in CODE_DIR, and the packages of requirements.txt with jax[tpu]. The
# workdir lies on storage that every host mounts (`xpk storage attach`, then
# EXTRA_FLAGS=--storage=NAME). A pod that is evicted saves. XPK restarts all pods after exit
# code 75, and after a lost host (codes 127 to 255).
set -euo pipefail

CLUSTER=${CLUSTER:-}
TPU_TYPE=${TPU_TYPE:-}               # type of a slice, such as v5litepod-16 or v6e-16
IMAGE=${IMAGE:-}
NAME=${NAME:-}                       # of the workload, new in the cluster; empty: name of the main
SLICES=${SLICES:-1}
PROJECT=${PROJECT:-}                 # empty: project and zone of gcloud's configuration
ZONE=${ZONE:-}
GRACE=${GRACE:-300}                  # seconds that a pod has to save
MAX_RESTARTS=${MAX_RESTARTS:-100}
CODE_DIR=${CODE_DIR:-/app}
PYTHON=${PYTHON:-python3}
SETUP=${SETUP:-}                     # shell commands before the main, such as 'export XLA_FLAGS=...'
EXTRA_FLAGS=${EXTRA_FLAGS:-}         # more options of xpk, such as '--storage=runs --priority=high'

# shellcheck source=launch/pods/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
require CLUSTER TPU_TYPE IMAGE SLICES CODE_DIR PYTHON
whole SLICES GRACE MAX_RESTARTS
absolute_paths
NAME=${NAME//_/-}
[[ $NAME =~ ^[a-z][-a-z0-9]{0,38}[a-z0-9]$ ]] ||
  fail "NAME=$NAME: expected 2 to 40 lower-case letters, digits and dashes, a letter first"

# exec: XPK sends SIGTERM to the shell that runs the command, and Python must get it.
command="${SETUP:+$SETUP && }cd $(quoted "$CODE_DIR") && exec $(program)"
create=(
  xpk workload create
  "--cluster=$CLUSTER" "--workload=$NAME" "--tpu-type=$TPU_TYPE" "--num-slices=$SLICES" "--docker-image=$IMAGE"
  ${PROJECT:+"--project=$PROJECT"} ${ZONE:+"--zone=$ZONE"}
  "--max-restarts=$MAX_RESTARTS" "--restart-on-exit-codes=$RESTART" "--termination-grace-period-seconds=$GRACE"
)
read -ra extra <<<"$EXTRA_FLAGS"
create+=(${extra[@]+"${extra[@]}"} "--command=$command")

if [[ -n $DRY_RUN ]]; then
  quoted "${create[@]}"
  echo
else
  tool xpk "pip install xpk"
  "${create[@]}" >&2
  echo "$NAME"
fi
