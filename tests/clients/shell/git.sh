#!/usr/bin/env bash
# git over HTTP; takes the proxy variables through libcurl. The URL is also a repository that holds the page.
set -euo pipefail

if git clone --quiet "$1" clone 2>message; then
  printf 'body: '
  cat clone/page
else
  printf 'error: %s\n' "$(<message)"
fi
