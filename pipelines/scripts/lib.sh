# shellcheck shell=bash
# What the scripts share. They run from the root of the repository, keep their files in $work, and end with one useful line.
#
# A script may define `clean`, which removes what it started; it is called with the exit code however the script ends.

shopt -s inherit_errexit  # a failure inside $(…) is a failure
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
export BUILD_BUILDID=${BUILD_BUILDID:-$$}
work=$(mktemp -d)  # for this user alone
pid_under_way=
exec {console}>&1  # a signal may come while the output goes to a file

trap finish EXIT
trap 'interrupted 143' TERM
trap 'interrupted 130' INT

say() { printf '%s\n' "$*"; }

# Text from people must not become a command of the agent:
# https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
harmless() { local text=${1//[^[:print:]]/ }; printf '%s' "${text//\#\#/\# \#}"; }

# Ends the script with a sentence, also from within $(…): there the exit code travels, and the file keeps the sentence.
fail() { printf '%s' "$*" >"$work/failure"; exit 1; }

# Sets an output variable of the step.
output() { printf '##vso[task.setvariable variable=%s;isOutput=true]%s\n' "$1" "$2"; }

# Runs a command so that a signal ends it at once; bash looks at signals between foreground commands only.
run() {
  local code=0
  "$@" &
  pid_under_way=$!
  wait "$pid_under_way" || code=$?
  pid_under_way=
  return "$code"
}

# A docker client hands the signal to its container, which may not care: it gets three seconds.
end() {
  local _
  kill -TERM "$1" 2>/dev/null || return 0
  for _ in {1..30}; do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$1" 2>/dev/null || true
}

interrupted() {
  trap '' TERM INT
  printf 'cancelled before it was done' >"$work/failure"
  if [[ $pid_under_way ]]; then end "$pid_under_way"; fi
  exit "$1"
}

finish() {
  local code=$? sentence
  trap - EXIT
  trap '' TERM INT
  set +e
  exec >&"$console" 2>&1
  sentence="stopped with exit code $code; the lines above say why"
  if [[ -s $work/failure ]]; then sentence=$(<"$work/failure"); fi
  if declare -F clean >/dev/null; then clean "$code"; fi
  if ((code)); then
    # An agent turns this into the issue that people see first.
    printf '%s%s: %s\n' "${TF_BUILD:+##vso[task.logissue type=error]}" "$(basename "$0" .sh)" "$(harmless "$sentence")"
  fi
  rm -rf "$work"
  exit "$code"
}

# need NAME…: the variables that have to be set.
need() {
  local name
  for name; do [[ ${!name:-} ]] || fail "the variable $name is not set"; done
  [[ $IMAGE =~ ^[a-z0-9][a-z0-9.-]*$ && -f pipelines/images/$IMAGE/Dockerfile ]] ||
    fail "there is no pipelines/images/$IMAGE/Dockerfile"
}

# Whether $1 is a sha256 digest.
is_digest() { [[ $1 =~ ^sha256:[0-9a-f]{64}$ ]]; }

# What a run starts carries its number, so that clean.sh finds it.
# shellcheck disable=SC2034
run_label=shipshape.run=$BUILD_BUILDID
