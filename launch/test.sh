#!/usr/bin/env bash
# Lint and tests. --slow adds the slow suite; all other arguments go to pytest.
set -euo pipefail
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
say "pytest, $suite"
exec .venv/bin/python -m pytest -q ${arguments[@]+"${arguments[@]}"}
