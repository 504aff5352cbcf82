#!/usr/bin/env bash
# wget; takes the proxy variables, in lower case only.
set -euo pipefail

if wget --no-verbose --tries=1 --server-response --content-on-error --output-document=page "$1" 2>messages; then
  printf 'body: '
  cat page
else
  cat messages >&2
  sed --quiet --regexp-extended 's/^[0-9: -]*(.*(ERROR|failed).*)/error: \1/p' messages
  sed --quiet 's/^ *proxy-status: /proxy-status: /ip' messages
  [[ ! -s page ]] || printf 'body: %s\n' "$(<page)"
fi
