#!/usr/bin/env bash
# Builds the image from the pinned base, labels it, and pushes it as a candidate. Nothing that people use is touched.
#
# In:  IMAGE, REGISTRY, REPOSITORY, BASE (name@digest), BASE_NAME, VERSION_TAG; PLATFORMS (with commas, linux/amd64),
#      ATTESTATIONS=true (SBOM and provenance, needs buildx), IMMUTABLE_VERSIONS=true and LINES_OF_REPOSITORY (registry.sh).
# Out: digest, candidate (its tag), seconds.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=registry.sh
. pipelines/scripts/registry.sh
need IMAGE REGISTRY REPOSITORY BASE BASE_NAME VERSION_TAG
is_digest "${BASE##*@}" || fail "BASE has to name a digest, this one does not: $(harmless "$BASE")"

candidate=candidate-$BUILD_BUILDID-${SYSTEM_STAGEATTEMPT:-1}
reference=$REGISTRY/$REPOSITORY:$candidate
platforms=${PLATFORMS:-linux/amd64}

clean() { docker image rm --force "$reference" >/dev/null 2>&1; }

# Where the sources are, without a name or token that a checkout may carry in its address.
source_url() {
  local url=${BUILD_REPOSITORY_URI:-}
  if [[ $url =~ ^(https?://)[^/@]*@(.*)$ ]]; then url=${BASH_REMATCH[1]}${BASH_REMATCH[2]}; fi
  printf '%s' "$url"
}

# https://github.com/opencontainers/image-spec/blob/main/annotations.md
labels=(
  base.name="$BASE_NAME"
  base.digest="${BASE##*@}"
  created="$(date --utc +%Y-%m-%dT%H:%M:%SZ)"
  revision="${BUILD_SOURCEVERSION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}"
  source="$(source_url)"
  title="$IMAGE"
  version="$VERSION_TAG"
)
# No cache: a rebuild that takes its layers from the last one is none.
options=(--pull --no-cache --force-rm --build-arg "BASE=$BASE" --tag "$reference")
for label in "${labels[@]}"; do options+=(--label "org.opencontainers.image.$label"); done
context=pipelines/images/$IMAGE
does_not_build="the Dockerfile of $IMAGE does not build on $BASE_NAME; the lines above say where"

with_docker() {
  # Also where docker build is buildx: one platform, one manifest.
  export BUILDX_NO_DEFAULT_ATTESTATIONS=1
  run docker build "${options[@]}" "$context" || fail "$does_not_build"
  run docker push "$reference" || fail "$REGISTRY did not take the candidate $candidate of $REPOSITORY"
  docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$reference" >"$work/digests"
  pushed=$(sed --quiet "s|^$REGISTRY/$REPOSITORY@||p" "$work/digests")
}

with_buildx() {
  local builder=shipshape-$BUILD_BUILDID
  clean() { docker buildx rm --force "$builder" >/dev/null 2>&1; }
  docker buildx version >/dev/null 2>&1 || fail "$1 needs docker buildx, which this agent does not have"
  docker buildx create --name "$builder" --driver docker-container >/dev/null || fail "docker buildx has no builder for $platforms"
  options+=(--builder "$builder" --platform "$platforms" --push --metadata-file "$work/metadata.json")
  if [[ ${ATTESTATIONS:-} == true ]]; then options+=(--sbom=true --provenance=mode=max); else options+=(--provenance=false); fi
  run docker buildx build "${options[@]}" "$context" || fail "$does_not_build, or that $REGISTRY did not take it"
  pushed=$(jq --raw-output '."containerimage.digest"' "$work/metadata.json")
}

registry_login
fetch_manifest "$VERSION_TAG" "$work/manifest"
[[ ! $digest ]] || fail "the version $VERSION_TAG of $REPOSITORY exists already ($digest); a version is never built twice"
ensure_repository

engine=$(docker version --format '{{.Server.Os}}/{{.Server.Arch}}') || fail "no docker engine answers on this agent"
if [[ ${ATTESTATIONS:-} == true ]]; then with_buildx "an SBOM"
elif [[ $platforms != "$engine" ]]; then with_buildx "building $platforms on $engine"
else with_docker
fi

is_digest "$pushed" || fail "docker did not tell the digest of what it pushed"
fetch_manifest "$candidate" "$work/manifest"
[[ $digest == "$pushed" ]] || fail "$REGISTRY shows the candidate $candidate as ${digest:-missing}, pushed was $pushed"
say "Pushed the candidate $REGISTRY/$REPOSITORY@$digest"
output digest "$digest"
output candidate "$candidate"
output seconds "$SECONDS"
