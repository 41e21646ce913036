#!/usr/bin/env bash
# Puts the shipshape command on the agent's PATH, unless the agent brings it: an environment of its own, from the lock file.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if command -v shipshape >/dev/null; then
  say "shipshape is here already: $(command -v shipshape)"
  exit 0
fi
environment=${AGENT_TEMPDIRECTORY:?is set by the agent}/shipshape
python3 -m venv "$environment"
pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check)
run "${pip[@]}" --require-hashes --requirement requirements.lock || fail "the packages of requirements.lock could not be installed"
run "${pip[@]}" --no-deps --no-build-isolation . || fail "shipshape could not be installed from this checkout"
printf '##vso[task.prependpath]%s\n' "$environment/bin"
