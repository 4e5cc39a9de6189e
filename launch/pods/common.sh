# shellcheck shell=bash disable=SC2034 # variables that the scripts read
# Sourced by slurm.sh, xpk.sh and tpu_vm.sh: command line, errors, quoting.
# Changes to the repository root.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

RESTART=75  # exit code of a main that SIGTERM stopped and that saved (atspeed_jax/training/preemption.py)
SCRIPT=launch/pods/${0##*/}

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }

fail() {
  say "error: $*"
  exit 2
}

# Sets DRY_RUN, MAIN and FLAGS from `[--dry_run] launch.MAIN [-- --flag=value ...]`.
parse() {
  DRY_RUN='' MAIN='' FLAGS=()
  while (($#)); do
    case $1 in
      --dry_run) DRY_RUN=yes ;;
      --) shift; FLAGS=("$@"); break ;;
      -*) fail "unknown option $1; expected [--dry_run] launch.MAIN -- --flag=value ... (flags of the main after --)" ;;
      *) [[ -z $MAIN ]] || fail "$1 after $MAIN: flags of the main come after --"; MAIN=$1 ;;
    esac
    shift
  done
  [[ -n $MAIN ]] || fail "no main; expected [--dry_run] launch.MAIN -- --flag=value ..., such as launch.pipeline"
  local mains
  mains=$(grep -l '^if __name__ == "__main__":' launch/*.py | sed 's|/|.|; s|\.py$||')
  mains=${mains//$'\n'/ }
  [[ " $mains " == *" $MAIN "* ]] || fail "there is no main $MAIN; expected one of $mains"
  NAME=${NAME:-${MAIN#launch.}}
  local text
  no_urls
  for text in "$SETUP" "$PYTHON" ${FLAGS[@]+"${FLAGS[@]}"}; do
    [[ $text != *$'\n'* ]] || fail "a line break in ${text%%$'\n'*}...: a job's command is one line"
  done
}

# Fails unless every named variable has a value.
require() {
  local name
  for name in "$@"; do
    [[ -n ${!name} ]] || fail "$name is not set; give it in front: $name=... $SCRIPT ..."
  done
}

# Fails unless every named variable holds a whole number.
whole() {
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^[0-9]+$ ]] || fail "$name=${!name}: expected a whole number"
  done
}

# Fails unless every named variable is one word: it becomes a word of a command or
# of an #SBATCH line.
word() {
  local name
  for name in "$@"; do
    [[ ! ${!name} =~ [[:space:]] ]] || fail "$name='${!name}': expected no blanks"
  done
}

PATHS='workdir|data_dir|borrow|checkpoint|input|output|json|config'

# Prints every flag of the main whose value is a path, as --flag=value.
path_flags() {
  local previous='' flag
  for flag in ${FLAGS[@]+"${FLAGS[@]}"}; do
    [[ $previous =~ ^--?($PATHS)$ ]] && flag=$previous=$flag
    [[ ! $flag =~ ^--?($PATHS)= ]] || printf '%s\n' "$flag"
    previous=$flag
  done
}

# Fails for a URL. The mains use the file system alone, where gs://bucket/run would be a
# local directory "gs:".
no_urls() {
  local text
  while read -r text; do
    [[ ! $text =~ ^[^=]*=[A-Za-z](://|[A-Za-z0-9+.-]+:/) ]] ||
      fail "$text: expected a path; mount the storage on every host and give the path where it is mounted"
  done < <(path_flags; printf 'LOGS=%s\nCODE_DIR=%s\n' "${LOGS:-}" "${CODE_DIR:-}")
}

# Fails for a relative path. On the hosts of a job its files would be missing, or lost when
# the hosts go.
absolute_paths() {
  local flag
  while read -r flag; do
    [[ ! $flag =~ ^[^=]*=[^/] || $flag =~ ^--?config= ]] ||
      fail "$flag: expected an absolute path, on storage that all hosts mount"
  done < <(path_flags)
}

tool() { command -v "$1" >/dev/null || fail "$1 is not installed or not on PATH: $2"; }

# Prints the arguments as words of one shell command.
quoted() {
  local argument words=()
  for argument in "$@"; do
    case $argument in
      '' | *[!A-Za-z0-9_@%+=:,./-]*) argument="'${argument//\'/\'\\\'\'}'" ;;
    esac
    words+=("$argument")
  done
  printf '%s' "${words[*]}"
}

# Prints what every host runs, as one shell command.
program() { quoted "$PYTHON" -m "$MAIN" --distributed ${FLAGS[@]+"${FLAGS[@]}"}; }
