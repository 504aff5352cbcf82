#!/usr/bin/env bash
# curl; takes the proxy variables, http_proxy in lower case only. The headers of a refused CONNECT are
# there for whoever asks for headers (-i, -v, --dump-header). Without --fail a refused plain request counts as
# a success and its body is all that curl shows.
set -euo pipefail

if curl --silent --show-error --fail-with-body --dump-header headers --output page "$1" 2>message; then
  printf 'body: '
  cat page
else
  printf 'error: %s\n' "$(<message)"
  sed --quiet 's/\r$//; s/^proxy-status: /proxy-status: /ip' headers
  [[ ! -s page ]] || printf 'body: %s\n' "$(<page)"
fi
