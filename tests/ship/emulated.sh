#!/bin/sh
# Runs /outgate, a program for another machine, under the emulator /qemu: it starts, is healthy, refuses, and ends when told.
set -e
/qemu /outgate --version
OUTGATE_DNS_SERVERS=127.0.0.1 OUTGATE_DRAIN_DELAY=0s /qemu /outgate &
gateway=$!
attempts=0
until /qemu /outgate healthcheck; do
  attempts=$((attempts + 1))
  [ "$attempts" -lt 150 ]
  sleep 0.2
done
curl --silent --proxy http://127.0.0.1:3128 http://refused.test/ | grep '"error":"host_not_allowed"'
kill "$gateway"
wait "$gateway"
