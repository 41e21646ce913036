# shellcheck shell=bash
# The registry that REGISTRY names: log in, read and write manifests over the API that ECR and every other registry share.
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md
#
# ECR takes the user AWS and a password from `aws ecr get-login-password`. For any other registry, REGISTRY_USERNAME and
# REGISTRY_PASSWORD say who we are; without them we ask anonymously. ECR_REGION says that a REGISTRY by another name is ECR.
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html

: "${work:?lib.sh comes first}"
ECR_HOST='^[0-9]{12}\.dkr\.ecr(-fips)?\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$'
MANIFEST_TYPES='application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json'
MANIFEST_TYPES+=', application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json'

# Prints the region when REGISTRY is ECR, nothing when it is not.
ecr_region() {
  if [[ ${ECR_REGION:-} ]]; then printf '%s' "$ECR_REGION"
  elif [[ $REGISTRY =~ $ECR_HOST ]]; then printf '%s' "${BASH_REMATCH[2]}"
  fi
}

# Takes the AWS role that the service connection's token is good for. Elsewhere, aws finds its credentials as it always does.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_oidc.html
take_aws_role() {
  [[ ${idToken:-} ]] || return 0
  [[ ${AWS_ROLE_ARN:-} ]] || fail "AWS_ROLE_ARN does not say which role the service connection may take"
  printf '%s' "$idToken" >"$work/token"
  unset idToken
  # By file, so that no list of processes shows it; the answer stays in variables of this script.
  run aws sts assume-role-with-web-identity --role-arn "$AWS_ROLE_ARN" --role-session-name "shipshape-$BUILD_BUILDID" \
    --web-identity-token "file://$work/token" --query 'Credentials.[AccessKeyId,SecretAccessKey,SessionToken]' --output text \
    >"$work/role" || fail "AWS did not give the role $AWS_ROLE_ARN for the service connection's token"
  read -r AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN <"$work/role"
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
  rm "$work/token" "$work/role"
}

# Logs docker and curl in, for this script only: what is stored lies in $work and goes with it.
registry_login() {
  local region user=${REGISTRY_USERNAME:-} password=${REGISTRY_PASSWORD:-}
  unset REGISTRY_PASSWORD
  take_aws_role
  region=$(ecr_region)
  if [[ $region ]]; then
    user=AWS
    run aws ecr get-login-password --region "$region" >"$work/password" ||
      fail "AWS gave no password for $REGISTRY; look at the service connection and its role"
    password=$(<"$work/password")
  fi
  own_docker_config
  : >"$work/curl"
  [[ $user ]] || return 0
  local escaped=${password//\\/\\\\}
  printf 'user = "%s:%s"\n' "$user" "${escaped//\"/\\\"}" >"$work/curl"
  printf '%s' "$password" >"$work/password"
  run log_in "$user" || {
    cat "$work/login"
    fail "$REGISTRY refused the login of $user"
  }
  rm "$work/password"
}

log_in() { docker login --username "$1" --password-stdin "$REGISTRY" <"$work/password" >"$work/login" 2>&1; }

# Plugins such as buildx are looked up in the configuration directory, so they have to come along.
own_docker_config() {
  local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
  mkdir -m 700 "$work/docker"
  if [[ -d $plugins ]]; then ln -s "$plugins" "$work/docker/cli-plugins"; fi
  export DOCKER_CONFIG=$work/docker
}

digest='' status='' media_type=''

# request METHOD PATH [curl option…]: sets $status and $media_type; the body is in $work/body.
# curl itself repeats what may pass (408, 429, 500, 502, 503, 504) and obeys Retry-After.
request() {
  local method=$1 path=$2 scheme=https
  shift 2
  # Plain http on this machine only, as docker does it.
  if [[ $REGISTRY =~ ^(127\.[0-9.]+|localhost|\[::1\])(:[0-9]+)?$ ]]; then scheme=http; fi
  run curl --config "$work/curl" --silent --show-error --connect-timeout 10 --max-time 60 --retry 3 --retry-max-time 60 \
    --request "$method" --output "$work/body" --write-out '%{http_code} %{content_type}' "$@" \
    "$scheme://$REGISTRY/v2/$REPOSITORY/$path" >"$work/answer" || fail "$REGISTRY did not answer $method $path"
  read -r status media_type <"$work/answer" || true
}

# What a registry says about an error, in a few words.
refusal() { jq --raw-output '.errors[0] | "\(.code): \(.message)"' "$work/body" 2>/dev/null || true; }

sha256_of() { local sum; sum=$(sha256sum "$1"); printf 'sha256:%s' "${sum%% *}"; }

# fetch_manifest REFERENCE FILE: the exact bytes; sets $digest, hashed by us, and $media_type, both empty when there is none.
# shellcheck disable=SC2034
fetch_manifest() {
  request GET "manifests/$1" --header "Accept: $MANIFEST_TYPES"
  digest=''
  case $status in
    200) mv "$work/body" "$2"; digest=$(sha256_of "$2") ;;
    404) media_type='' ;;
    *) fail "$REGISTRY answered $status for $REPOSITORY:$1. $(refusal)" ;;
  esac
}

# put_manifest FILE TYPE TAG: points a tag to a manifest whose layers the repository already has. Nothing else is sent.
put_manifest() {
  request PUT "manifests/$3" --header "Content-Type: $2" --data-binary "@$1"
  [[ $status == 20? ]] || fail "$REGISTRY refused the tag $3 of $REPOSITORY with $status. $(refusal)"
}

# remove_tag TAG: takes a tag away and leaves the image. ECR has its own call; other registries may not be able to.
remove_tag() {
  local region
  region=$(ecr_region)
  if [[ $region ]]; then
    run aws ecr batch-delete-image --region "$region" --repository-name "$REPOSITORY" --image-ids "imageTag=$1" \
      --output json >"$work/removed" || return 1
    [[ $(jq '.failures | length' "$work/removed") == 0 ]]
  else
    request DELETE "manifests/$1"
    [[ $status == 202 ]]
  fi
}

# Creates the ECR repository when it is missing. IMMUTABLE_VERSIONS=true lets ECR itself refuse to move a version tag of
# the lines in LINES_OF_REPOSITORY; extra tags and latest stay movable.
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-tag-mutability.html
ensure_repository() {
  local region line
  region=$(ecr_region)
  [[ $region ]] || return 0
  if run aws ecr describe-repositories --region "$region" --repository-names "$REPOSITORY" >/dev/null 2>"$work/ecr"; then
    return 0
  fi
  grep --quiet RepositoryNotFoundException "$work/ecr" || { cat "$work/ecr"; fail "ECR does not show $REPOSITORY"; }
  local options=(--image-scanning-configuration scanOnPush=true)
  if [[ ${IMMUTABLE_VERSIONS:-} == true ]]; then
    options+=(--image-tag-mutability MUTABLE_WITH_EXCLUSION --image-tag-mutability-exclusion-filters)
    for line in ${LINES_OF_REPOSITORY:-}; do options+=("filterType=WILDCARD,filter=$line-*"); done
  fi
  say "Creating the ECR repository $REPOSITORY"
  run aws ecr create-repository --region "$region" --repository-name "$REPOSITORY" "${options[@]}" >/dev/null ||
    fail "ECR did not create $REPOSITORY"
}
