#!/usr/bin/env bash
# Installs Microsoft 365 Agents Playground into the given folder. Says so and goes on where that is not possible.
set -euo pipefail
folder=$1
terminal="The demo has no chat page then; .venv/bin/shipshape chat talks to it from a terminal."

if ! command -v npm >/dev/null; then
  echo "Node.js with npm is not installed. $terminal"
  exit 0
fi
echo "Installing the chat page, Microsoft 365 Agents Playground, into $folder."
mkdir -p "$folder"
cp tests/e2e/package.json "$folder/"
if npm install --prefix "$folder" --no-package-lock --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel error \
  --fetch-retries 1 --fetch-timeout 60000 >/dev/null; then
  cp tests/e2e/package.json "$folder/.installed"
else
  echo "npm could not install it. $terminal"
fi
