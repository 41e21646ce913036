#!/usr/bin/env bash
# Decides what is built: asks whether the base moved, pins it to a digest, chooses the version.
#
# In:  IMAGE, BASE, VERSION_TAG, EXTRA_TAGS, SKIP_UPDATE, REQUEST_ID, REASON (the template's parameters); REGISTRY, to push
#      elsewhere than the catalog says.
# Out: needed (false: the base is unchanged), registry, repository, base, base_name, base_digest,
#      version_tag, extra_tags, platforms, lines.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=registry.sh
. pipelines/scripts/registry.sh
need IMAGE

# The catalog is read by the package that owns its rules, with the interpreter that shipshape runs on.
describe() {
  local command
  command=$(command -v shipshape) || fail "there is no shipshape command on this agent; install.sh brings it"
  command=$(readlink --canonicalize "$command")
  "$(dirname "$command")/python" pipelines/scripts/describe.py "$IMAGE" || fail "the catalog does not describe $IMAGE"
}

# Sets $verdict. The exit code tells too: 0 fresh, 10 stale or not built yet, 20 unknown; the words are in the answer.
check() {
  local code=0
  run shipshape check "$IMAGE" --json >"$work/check.json" || code=$?
  [[ $code == 0 || $code == 10 || $code == 20 ]] || fail "shipshape could not check $IMAGE"
  verdict=$(jq --compact-output --exit-status '.images[0]' "$work/check.json") || fail "shipshape told nothing about $IMAGE"
}
from_verdict() { jq --raw-output "$1 // \"\"" <<<"$verdict"; }

entry=$(describe)
from_catalog() { jq --raw-output "$1" <<<"$entry"; }
base_name=$(from_catalog .base)
base=${BASE:-}
new_base=()  # unless a check tells, next-tag compares by itself
needed=true

say "Image: $IMAGE"
say "Request: $(harmless "${REQUEST_ID:-}") $(harmless "${REASON:-}")"

take_aws_role
if [[ $base != *@* || ${SKIP_UPDATE:-false} != true ]]; then
  check
  status=$(from_verdict .status)
  say "Check: $status, $(harmless "$(from_verdict .reason)")"
  if [[ $base != *@* ]]; then base=${base_name%:*}@$(from_verdict .current_digest); fi
  if [[ $status == fresh ]]; then new_base=(--no-new-base); else new_base=(--new-base); fi
  if [[ ${SKIP_UPDATE:-false} != true && $status == unknown ]]; then
    fail "it is not known whether the base of $IMAGE moved ($(from_verdict .reason)); set skip_update to build all the same"
  fi
  if [[ ${SKIP_UPDATE:-false} != true && $status == fresh ]]; then needed=false; fi
fi

[[ ${base%@*} == "${base_name%:*}" || ${base%@*} == "$base_name" ]] ||
  fail "$(harmless "$base") is not the base that the catalog names for $IMAGE, $base_name"
is_digest "${base##*@}" || fail "the base of $IMAGE has no digest: $(harmless "$base")"
output needed "$needed"
if [[ $needed == false ]]; then
  say "$IMAGE is up to date: $base_name is still ${base##*@}. Nothing is built."
  exit 0
fi

version_tag=${VERSION_TAG:-}
if [[ ! $version_tag ]]; then
  run shipshape next-tag "$IMAGE" "${new_base[@]}" >"$work/next" || fail "shipshape found no next version for $IMAGE"
  version_tag=$(<"$work/next")
fi
line=$(from_catalog .tag)
[[ $version_tag =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ && $version_tag == "$line"-* ]] ||
  fail "$(harmless "$version_tag") is not a version of the line $line"

# The bot sends a list with commas; a JSON list and spaces are understood as well.
extra_tags=${EXTRA_TAGS:-$(from_catalog '.extra_tags | join(" ")')}
read -ra extra <<<"${extra_tags//[][\",]/ }"
for tag in "${extra[@]}"; do
  [[ $tag =~ ^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ ]] || fail "$(harmless "$tag") is not a tag"
done

say "Base: $base_name at ${base##*@}"
say "Version: $version_tag, and the tags ${extra[*]} latest"
output registry "${REGISTRY:-$(from_catalog .registry)}"
output repository "$(from_catalog .repository)"
output base "${base_name%:*}@${base##*@}"
output base_digest "${base##*@}"
output base_name "$base_name"
output version_tag "$version_tag"
output extra_tags "${extra[*]}"
output platforms "$(from_catalog '.platforms | join(",")')"
output lines "$(from_catalog '.lines | join(" ")')"
