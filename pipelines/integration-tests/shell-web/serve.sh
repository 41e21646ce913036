#!/bin/sh
# Replaced by the server, so that it gets the signal to stop.
set -eu
echo "Listening on port 8080 as user $(id -u)"
exec busybox httpd -f -p 8080 -h /www
