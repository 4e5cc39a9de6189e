# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: goes to the repository root and makes .venv ready.
# Safe to run again: packages are installed only when requirements.txt has changed since the last install.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

STAMP=.venv/requirements.sha256  # hash of the requirements.txt that .venv was last filled from

say() { printf '>> %s\n' "$*"; }

# Prints the first Python that is new enough and can make a virtual environment; with PYTHON=..., only that one will do.
find_python() {
  local candidates=(python3.12 python3.11 python3 python python3.13) candidate
  if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
  fi
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  echo "No Python >= 3.11 with the venv module among: ${candidates[*]}. Install one, or name it: PYTHON=/path/to/python $0" >&2
  return 1
}

make_venv() {
  # Asks pip, not the directory: an interrupted first run leaves a .venv that cannot install anything.
  if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    return
  fi
  local python
  python=$(find_python)
  say "making .venv with $("$python" --version)"
  rm -f "$STAMP"  # of packages for another Python
  "$python" -m venv .venv
}

install_requirements() {
  local hash
  hash=$(.venv/bin/python -c 'import hashlib; print(hashlib.sha256(open("requirements.txt", "rb").read()).hexdigest())')
  if [[ -f $STAMP && $(<"$STAMP") == "$hash" ]]; then
    say "packages in .venv match requirements.txt"
    return
  fi
  say "installing requirements.txt into .venv (a few minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  printf '%s\n' "$hash" >"$STAMP"
}

make_venv
install_requirements
