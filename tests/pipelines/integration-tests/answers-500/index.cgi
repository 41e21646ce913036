#!/bin/sh
# The httpd of busybox runs this for /.
echo "asked for $REQUEST_URI" >&2
printf 'Status: 500 Internal Server Error\r\n\r\nthe database is not there\n'
