#!/usr/bin/env bash
# Removes the containers of this run from the agent. test.sh does it by itself; this is for when it was killed.
set -euo pipefail

docker ps --all --quiet --filter "label=shipshape.run=${BUILD_BUILDID:?the number of the run}" >"${TMPDIR:-/tmp}/shipshape-$$"
xargs --no-run-if-empty docker rm --force --volumes <"${TMPDIR:-/tmp}/shipshape-$$"
rm "${TMPDIR:-/tmp}/shipshape-$$"
