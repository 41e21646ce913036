#!/usr/bin/env bash
# Tests the candidate, by digest: what its expectations.json declares, then a real application built on it, over HTTP.
#
# In:  IMAGE, REGISTRY, REPOSITORY, DIGEST; BASE_DIGEST, which the label has to carry.
# Out: seconds. The application's log is in BUILD_ARTIFACTSTAGINGDIRECTORY/logs.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=registry.sh
. pipelines/scripts/registry.sh
need IMAGE REGISTRY REPOSITORY DIGEST
# shellcheck disable=SC2153
is_digest "$DIGEST" || fail "DIGEST is not a digest: $(harmless "$DIGEST")"

expectations=pipelines/images/$IMAGE/expectations.json
reference=$REGISTRY/$REPOSITORY@$DIGEST
application=shipshape-test:$BUILD_BUILDID
logs=${BUILD_ARTIFACTSTAGINGDIRECTORY:-artifacts}/logs
container=
mkdir -p "$logs"

clean() {
  if [[ $container ]]; then
    docker logs "$container" >"$logs/application.log" 2>&1
    if (($1)); then
      say "The end of the application's log:"
      tail --lines 50 "$logs/application.log" | while IFS= read -r line; do say "$(harmless "$line")"; done
    fi
  fi
  bash pipelines/scripts/clean.sh >"$work/clean" 2>&1 || cat "$work/clean"
  docker image rm --force "$application" "$reference" >/dev/null 2>&1
}

expected() { jq --compact-output "$1" "$expectations"; }

read_expectations() {
  local unknown
  unknown=$(jq --raw-output 'keys - ["application","commands","environment","files","ports","user"] | join(", ")' "$expectations") ||
    fail "$expectations is missing or not JSON"
  [[ ! $unknown ]] || fail "$expectations has keys that nothing reads: $unknown"
}

# same WHAT EXPECTED ACTUAL: both JSON.
same() { [[ $2 == "$3" ]] || fail "$IMAGE has $1 $3, expected $2"; say "Passed: $1 $2"; }

config() { jq --compact-output "$@" "$work/config.json"; }

check_configuration() {
  local wanted
  docker image inspect --format '{{json .Config}}' "$reference" >"$work/config.json"
  same user "$(expected .user)" "$(config .User)"
  same ports "$(expected '.ports | sort')" "$(config '.ExposedPorts // {} | keys')"
  wanted=$(jq --compact-output --sort-keys '.environment // {}' "$expectations")
  # shellcheck disable=SC2016 # $wanted is a variable of jq
  same environment "$wanted" "$(config --sort-keys --argjson wanted "$wanted" \
    '[.Env[] | capture("^(?<key>[^=]*)=(?<value>.*)$"; "s")] | from_entries | with_entries(select(.key | in($wanted)))')"
  if [[ ${BASE_DIGEST:-} ]]; then
    same "base digest" "\"$BASE_DIGEST\"" "$(config '.Labels["org.opencontainers.image.base.digest"]')"
  fi
}

# Runs one command in the image as its own user, without a network. The client gets the deadline; clean.sh ends the rest.
in_image() {
  run timeout 120 docker run --rm --label "$run_label" --network none --cap-drop ALL --security-opt no-new-privileges \
    --entrypoint sh "$reference" -c "$1"
}

check_contents() {
  local file command
  jq --raw-output '.files // [] | .[]' "$expectations" >"$work/files"
  jq --raw-output '.commands // [] | .[]' "$expectations" >"$work/commands"
  while IFS= read -r file <&3; do
    in_image "test -e '$file'" || fail "$IMAGE has no $file"
    say "Passed: has $file"
  done 3<"$work/files"
  while IFS= read -r command <&3; do
    in_image "$command" || fail "the command does not succeed in $IMAGE: $command"
    say "Passed: $command"
  done 3<"$work/commands"
}

build_application() {
  local name context options=() argument
  name=$(expected .application.name | jq --raw-output .)
  context=pipelines/integration-tests/$name
  [[ -f $context/Dockerfile ]] || fail "$expectations names the application $name, which is not in pipelines/integration-tests"
  jq --raw-output --arg base "$reference" \
    '.application.arguments // {} | to_entries[] | "\(.key)=\(.value | gsub("\\$\\{BASE\\}"; $base))"' "$expectations" >"$work/arguments"
  while IFS= read -r argument; do options+=(--build-arg "$argument"); done <"$work/arguments"
  run docker build --pull --no-cache --force-rm --label "$run_label" --build-arg "BASE=$reference" "${options[@]}" \
    --tag "$application" "$context" || fail "the application $name does not build on $IMAGE; the lines above say where"
}

# The hardening that a cluster would apply is applied here, so that an image which needs more is found out.
start_application() {
  local command=()
  expected '.application.command // []' | jq --raw-output '.[]' >"$work/command"
  mapfile -t command <"$work/command"
  container=$(docker create --label "$run_label" --publish 127.0.0.1::8080 --cap-drop ALL --security-opt no-new-privileges \
    "$application" "${command[@]}") || fail "docker made no container of the application"
  docker start "$container" >/dev/null || fail "the application does not start on $IMAGE"
}

# Asks until there is an answer, which is final, or the deadline passes.
ask_application() {
  local path text timeout deadline state address='' status
  path=$(expected '.application.path // "/"' | jq --raw-output .)
  text=$(expected '.application.answer // ""' | jq --raw-output .)
  timeout=$(expected '.application.timeout_s // 60')
  deadline=$((SECONDS + timeout))
  while ((SECONDS < deadline)); do
    state=$(docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$container")
    [[ $state == running* ]] || fail "the application on $IMAGE ended by itself with exit code ${state#* }; its log is above"
    if [[ ! $address ]]; then address=$(docker port "$container" 8080/tcp 2>/dev/null) || address=; fi
    status=$(curl --silent --max-time 5 --output "$work/answer" --write-out '%{http_code}' "http://${address%%$'\n'*}$path") || status=000
    if [[ $status == 200 ]] && grep --quiet --fixed-strings -- "$text" "$work/answer"; then
      say "Passed: GET $path answered 200 in $((SECONDS - deadline + timeout)) s"
      return 0
    fi
    [[ $status == 000 ]] || fail "the application on $IMAGE answered $status to GET $path, expected 200 and '$text'; its log is above"
    sleep 0.2
  done
  fail "the application on $IMAGE did not answer GET $path within $timeout s; its log is above"
}

read_expectations
registry_login
run docker pull --quiet "$reference" || fail "$REGISTRY did not give the candidate $DIGEST"
say "Testing $reference on $(docker version --format '{{.Server.Os}}/{{.Server.Arch}}')"
check_configuration
check_contents
build_application
start_application
ask_application
output seconds "$SECONDS"
