#!/usr/bin/env bash
# Lint and tests. --slow adds the slow suite; all other arguments go to pytest.
# Files are spread over up to 4 processes, one per core (-n 0: one process, as --pdb and -s need it).
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

suite="fast suite"
arguments=()
for argument in "$@"; do
  if [[ $argument == --slow ]]; then
    suite="fast and slow suites"
    arguments+=(-m "")
  else
    arguments+=("$argument")
  fi
done

say "ruff check"
.venv/bin/python -m ruff check .
say "pyright"
.venv/bin/python -m basedpyright --pythonpath .venv/bin/python --level error
say "pytest, $suite"
exec .venv/bin/python -m pytest -q -n auto --maxprocesses=4 --dist=loadgroup ${arguments[@]+"${arguments[@]}"}
