#!/usr/bin/env bash
# Installs the Debian packages that some tests need, where that is allowed: as root, or with a sudo that asks nothing.
# Never fails: a test whose program is missing is left out, and the test summary says why.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# program, and the package that has it
needed=(
  docker-registry:docker-registry
  chromium:chromium
  dockerd:docker.io
  docker:docker-cli # part of docker.io before Debian 13
  ip:iproute2
  busybox:busybox-static
  curl:curl
  jq:jq
  node:nodejs
  npm:npm
  shellcheck:shellcheck
)

missing() {
  local pair
  for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || printf '%s ' "${pair##*:}"
  done
}

packages=$(missing)
[[ $packages ]] || exit 0

as_root=()
if [[ $(id -u) != 0 ]]; then
  as_root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
  echo "These Debian packages are missing and cannot be installed here: $packages"
  echo "The tests that need them are left out; the summary names them."
  exit 0
fi

echo "Installing Debian packages for the tests: $packages"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
"${apt[@]}" update || true
# One by one: a package that this release does not have must not keep the others away.
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null && continue
  "${apt[@]}" install --yes --no-install-recommends "${pair##*:}" >/dev/null ||
    echo "${pair##*:} could not be installed."
done
