#!/usr/bin/env bash
# Promotes the tested candidate: the same manifest, by digest, gets the version tag, the extra tags, and last of all latest.
# Nothing is built or uploaded again. When it cannot be finished, what was moved is moved back.
#
# In:  IMAGE, REGISTRY, REPOSITORY, DIGEST, VERSION_TAG, BASE_NAME, BASE_DIGEST; EXTRA_TAGS (with spaces), CANDIDATE,
#      REQUEST_ID, BUILD_SECONDS, TEST_SECONDS.
# Out: result.json in BUILD_ARTIFACTSTAGINGDIRECTORY.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=registry.sh
. pipelines/scripts/registry.sh
need IMAGE REGISTRY REPOSITORY DIGEST VERSION_TAG BASE_NAME BASE_DIGEST
# shellcheck disable=SC2153
is_digest "$DIGEST" || fail "DIGEST is not a digest: $(harmless "$DIGEST")"

manifest=$work/manifest
result=${BUILD_ARTIFACTSTAGINGDIRECTORY:-artifacts}/result.json
read -ra extra <<<"${EXTRA_TAGS:-}"
tags=("$VERSION_TAG" "${extra[@]}" latest)
declare -A before=() types=()  # digest and media type of what each tag pointed to; the bytes are in $work/before-TAG
moved=()

clean() {
  if (($1)); then undo; fi
}

# Newest first, so that the version tag, which says that the image is complete, is the last to stay.
undo() {
  local tag position
  for ((position = ${#moved[@]} - 1; position >= 0; position--)); do
    tag=${moved[position]}
    if [[ ${before[$tag]} ]]; then
      if (put_manifest "$work/before-$tag" "${types[$tag]}" "$tag"); then say "Moved $tag back"; else say "$tag could not be moved back"; fi
    elif (fetch_manifest "$tag" "$work/seen" && [[ $digest == "$DIGEST" ]]); then
      if (remove_tag "$tag"); then say "Removed $tag again"; else say "$tag stays; running this stage again goes on from there"; fi
    fi
  done
}

# Remembers what every tag points to, and stops before anything is moved when the version is taken.
look() {
  local tag taken
  for tag in "${tags[@]}"; do
    fetch_manifest "$tag" "$work/before-$tag"
    before[$tag]=$digest
    types[$tag]=$media_type
  done
  taken=${before[$VERSION_TAG]}
  [[ ! $taken || $taken == "$DIGEST" ]] ||
    fail "the version $VERSION_TAG of $REPOSITORY was taken meanwhile by $taken; run the pipeline again to get the next one"
}

promote() {
  local tag=$1
  if [[ ${before[$tag]} == "$DIGEST" ]]; then
    say "$tag is there already"
    return 0
  fi
  moved+=("$tag")
  put_manifest "$manifest" "$type" "$tag"
  fetch_manifest "$tag" "$work/seen"
  [[ $digest == "$DIGEST" ]] ||
    fail "$REGISTRY shows $tag of $REPOSITORY as ${digest:-missing} after the push, expected $DIGEST"
  say "Pushed $REGISTRY/$REPOSITORY:$tag"
}

# Compressed bytes, as ECR counts them: configuration and layers; of an index, those of all its images. Sets $size.
measure() {
  local children child own
  children=$(jq --raw-output '.manifests // [] | .[].digest' "$1")
  own=$(jq '[.config.size // 0, (.layers // [] | .[].size)] | add' "$1")
  size=$((size + own))
  for child in $children; do
    fetch_manifest "$child" "$work/child-$child"
    measure "$work/child-$child"
  done
}

# What ECR found in the candidate since it was pushed. It is told and goes into the result; whether it matters is for people.
read_scan() {
  local region deadline=$((SECONDS + 60)) state
  region=$(ecr_region)
  [[ $region ]] || return 0
  while run aws ecr describe-image-scan-findings --region "$region" --repository-name "$REPOSITORY" --image-id "imageDigest=$DIGEST" \
    --query '{status: imageScanStatus.status, findings: imageScanFindings.findingSeverityCounts}' --output json --no-paginate \
    >"$work/scan" 2>"$work/scan-error"; do
    scan=$(<"$work/scan")
    state=$(jq --raw-output .status <<<"$scan")
    if [[ ! $state =~ ^(IN_PROGRESS|PENDING)$ ]] || ((SECONDS >= deadline)); then break; fi
    run sleep 2
  done
  if [[ $scan == null ]]; then
    say "Scan: none, $(tr --delete '\n' <"$work/scan-error")"
  else
    say "Scan: $(jq --raw-output '"\(.status) \(.findings // {} | to_entries | map("\(.value) \(.key)") | join(", "))"' <<<"$scan")"
  fi
}

write_result() {
  mkdir -p "$(dirname "$result")"
  jq --null-input \
    --arg image "$IMAGE" --arg registry "$REGISTRY" --arg repository "$REPOSITORY" --arg digest "$DIGEST" --arg version_tag "$VERSION_TAG" \
    --arg base_name "$BASE_NAME" --arg base_digest "$BASE_DIGEST" --arg request_id "${REQUEST_ID:-}" \
    --argjson size "$size" --argjson scan "$scan" --argjson build "${BUILD_SECONDS:-null}" --argjson test "${TEST_SECONDS:-null}" --argjson push "$SECONDS" \
    --args '{$image, $registry, $repository, $digest, $version_tag, tags: $ARGS.positional, $base_name, $base_digest, size_bytes: $size,
      $scan, durations_s: {$build, $test, $push}, $request_id}' "${tags[@]}" >"$result"
  say "Result:"
  jq . "$result"
}

registry_login
fetch_manifest "$DIGEST" "$manifest"
[[ $digest ]] || fail "$REGISTRY no longer has the candidate $DIGEST of $REPOSITORY"
[[ $digest == "$DIGEST" ]] || fail "$REGISTRY answered the manifest $digest for $DIGEST"
type=$media_type
size=0
scan=null
measure "$manifest"
read_scan
look
for tag in "${tags[@]}"; do promote "$tag"; done
write_result
moved=()

# The image has its version now. A candidate tag that cannot be taken away does no harm.
if [[ ${CANDIDATE:-} && $(ecr_region) ]]; then
  remove_tag "$CANDIDATE" || say "The tag $CANDIDATE could not be removed"
fi
