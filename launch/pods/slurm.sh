#!/usr/bin/env bash
# Submits a main to SLURM: one task per node, together one JAX program. Prints the job's id.
#
#   NODES=4 GPUS_PER_NODE=8 TIME_LIMIT=24:00:00 launch/pods/slurm.sh [--dry_run] \
#     launch.pipeline -- --config=configs/lcrec_small.py --workdir=/shared/runs/beauty --data_dir=/shared/beauty
#
# The nodes must find this clone and its .venv under the path they have here. All nodes must
# share the workdir. Before the time limit training saves, and the job is queued again. SLURM
# does the same with a job that is preempted.
set -euo pipefail

NAME=${NAME:-}                       # of the job; empty: name of the main
NODES=${NODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-0}    # such as 8, or a100:8 with a type; 0: none
CPUS_PER_TASK=${CPUS_PER_TASK:-}     # empty: default of the cluster
TIME_LIMIT=${TIME_LIMIT:-}           # such as 24:00:00; empty: limit of the partition
PARTITION=${PARTITION:-}
ACCOUNT=${ACCOUNT:-}
GRACE=${GRACE:-300}                  # seconds before the time limit at which training is asked to save
MAX_RESTARTS=${MAX_RESTARTS:-100}
LOGS=${LOGS:-runs/slurm}             # directory of NAME-ID.log
PYTHON=${PYTHON:-.venv/bin/python}   # from the clone's root
SETUP=${SETUP:-}                     # shell commands before the main, such as 'module load cuda'
EXTRA_FLAGS=${EXTRA_FLAGS:-}         # more options of sbatch, such as '--qos=high --exclusive'

# shellcheck source=launch/pods/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
require NODES PYTHON LOGS
whole NODES GRACE MAX_RESTARTS
word NAME CPUS_PER_TASK TIME_LIMIT PARTITION ACCOUNT LOGS

[[ $GPUS_PER_NODE =~ ^([A-Za-z0-9_.-]+:)?([0-9]+)$ ]] ||
  fail "GPUS_PER_NODE=$GPUS_PER_NODE: expected a whole number, or TYPE:NUMBER such as a100:8"
GPUS=${BASH_REMATCH[2]}
read -ra extra <<<"$EXTRA_FLAGS"

# Under SLURM, JAX gives a process one device unless a variable names its devices. This
# script sets the variable for devices of GPUS_PER_NODE alone, so it refuses other requests.
gpus_asked_elsewhere() {
  local name previous='' flag
  for flag in ${extra[@]+"${extra[@]}"}; do
    [[ $previous =~ ^(-G|--gpus|--gpus-per-(node|task|socket)|--gres|--tres-per-(node|task|job|socket))$ ]] &&
      flag=$previous=$flag
    case $flag in
      -G?* | --gpus=* | --gpus-per-*=* | --gres=*gpu* | --tres-per-*=*gpu*) printf 'EXTRA_FLAGS=%s\n' "$flag" ;;
    esac
    previous=$flag
  done
  for name in SBATCH_GPUS SBATCH_GPUS_PER_NODE SBATCH_GPUS_PER_TASK SBATCH_GRES SBATCH_TRES_PER_TASK; do
    flag=${!name:-}
    [[ -z $flag || ( $name == SBATCH_*RES* && $flag != *gpu* ) ]] || printf '%s\n' "$name=$flag"
  done
}
asked=$(gpus_asked_elsewhere)
[[ -z $asked ]] ||
  fail "${asked%%$'\n'*}: each process would use one of these devices; ask with GPUS_PER_NODE=NUMBER or TYPE:NUMBER instead"

options=("--job-name=$NAME" "--nodes=$NODES" --ntasks-per-node=1)
((GPUS == 0)) || options+=("--gpus-per-node=$GPUS_PER_NODE")
[[ -z $CPUS_PER_TASK ]] || options+=("--cpus-per-task=$CPUS_PER_TASK")
[[ -z $TIME_LIMIT ]] || options+=("--time=$TIME_LIMIT")
[[ -z $PARTITION ]] || options+=("--partition=$PARTITION")
[[ -z $ACCOUNT ]] || options+=("--account=$ACCOUNT")
# Without "B:" the signal goes to the tasks of srun, not to the shell below. A job that is
# queued again appends to its log.
options+=("--output=$LOGS/%x-%j.log" --open-mode=append --requeue "--signal=TERM@$GRACE")
options+=(${extra[@]+"${extra[@]}"})

# Since SLURM 22.05 srun does not take --cpus-per-task from the job. The first task that ends
# must not end the others, which may still save.
step=(srun ${CPUS_PER_TASK:+"--cpus-per-task=$CPUS_PER_TASK"} --kill-on-bad-exit=0)

batch_file() {
  echo '#!/usr/bin/env bash'
  printf '#SBATCH %s\n' "${options[@]}"
  echo 'trap : TERM  # if SLURM ends the whole job, this shell waits for its tasks to save'
  echo "cd $(quoted "$PWD") || exit"
  [[ -z $SETUP ]] || echo "$SETUP"
  ((GPUS == 0)) || echo "export JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((GPUS - 1)))"
  echo 'status=0'
  echo "$(quoted "${step[@]}") $(program) || status=\$?"
  # 143: SIGTERM ended a main that had nothing to save. A job that is canceled is not RUNNING.
  echo "if ((status == $RESTART || status == 143)) && ((\${SLURM_RESTART_COUNT:-0} < $MAX_RESTARTS)) &&"
  # shellcheck disable=SC2016  # the job expands it
  printf '  %s\n' 'scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then' 'scontrol requeue "$SLURM_JOB_ID"'
  echo 'fi'
  # shellcheck disable=SC2016
  echo 'exit "$status"'
}

if [[ -n $DRY_RUN ]]; then
  printf "mkdir -p %s\nsbatch --parsable <<'END'\n%s\nEND\n" "$(quoted "$LOGS")" "$(batch_file)"
else
  tool sbatch "run this on a login node of the cluster"
  mkdir -p "$LOGS"  # a job whose log cannot be opened ends without a message
  sbatch --parsable < <(batch_file)
fi
