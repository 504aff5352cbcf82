# shellcheck shell=bash disable=SC2034,SC2154 # it shares its variables with run
# Starts and stops what the clients talk to: origins, name server, gateway. Sourced by run.

declare -A service reader

# start NAME PATTERN COMMAND…: runs COMMAND in the background with its output in $work/NAME.log, and returns
# when a line of it matches PATTERN, with the match in BASH_REMATCH.
start() {
  local name=$1 pattern=$2 line output
  shift 2
  mkfifo "$work/$name.fifo"
  "$@" >"$work/$name.fifo" 2>&1 &
  service[$name]=$!
  exec {output}<"$work/$name.fifo"
  while IFS= read -r -t 30 line <&"$output"; do
    printf '%s\n' "$line" >>"$work/$name.log"
    if [[ $line =~ $pattern ]]; then
      cat <&"$output" >>"$work/$name.log" &
      reader[$name]=$!
      exec {output}<&-
      return
    fi
  done
  echo "$name did not say that it listens:" >&2
  cat "$work/$name.log" >&2
  return 1
}

# stop NAME: ends it; when this returns, its log is complete.
stop() {
  kill "${service[$1]}" 2>/dev/null || true
  wait "${service[$1]}" "${reader[$1]-}" 2>/dev/null || true
  unset "service[$1]"
}

stop_all() {
  local name
  for name in "${!service[@]}"; do stop "$name"; done
}

# A certificate for the test names, and the CA that the clients are told to trust. The refused name is on it
# too: were the gate open, the page would come, not a certificate error that looks like a refusal.
make_certificates() {
  certificate ca /CN=ca.test \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
  certificate origin /CN=allowed.test -CA "$work/ca.pem" -CAkey "$work/ca.key" \
    -addext subjectAltName=DNS:allowed.test,DNS:refused.test -addext authorityKeyIdentifier=keyid
  keytool -importcert -noprompt -alias ca -file "$work/ca.pem" \
    -keystore "$work/ca.p12" -storepass changeit 2>/dev/null
}

# certificate NAME SUBJECT OPTION…: $work/NAME.pem and .key. Without the system's configuration, which adds
# extensions of its own.
certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 \
    -config <(printf '[req]\ndistinguished_name=name\n[name]\n') \
    -keyout "$work/$1.key" -out "$work/$1.pem" -subj "$2" -addext subjectKeyIdentifier=hash \
    "${@:3}" 2>/dev/null
}

# The page: more than the socket buffers on its way hold, and no text, so that a changed byte shows. The same
# bytes in a bare repository, made without the user's settings and without a hook's GIT_DIR.
make_page() (
  unset "${!GIT_@}"
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
  head --bytes=1M /dev/urandom >"$work/page"
  mkdir "$work/checkout"
  cp "$work/page" "$work/checkout"
  git -C "$work/checkout" init --quiet --initial-branch=main
  git -C "$work/checkout" add page
  git -C "$work/checkout" -c user.name=test -c user.email=test@allowed.test commit --quiet --message=page
  git clone --quiet --bare "$work/checkout" "$work/repositories/page"
)

start_origins() {
  make_certificates
  make_page
  start origin 'http=([0-9]+) https=([0-9]+)' "$python" "$here/services/origin.py" \
    --name allowed.test --page "$work/page" --repositories "$work/repositories" \
    --certificate "$work/origin.pem" --key "$work/origin.key"
  port=([http]=${BASH_REMATCH[1]} [https]=${BASH_REMATCH[2]})
  start names 'dns=([0-9]+)' "$python" "$here/services/dns_responder.py"
  port[dns]=${BASH_REMATCH[1]}
}

# start_gateway NAME VARIABLE=VALUE…: leaves its address in $proxy. Nothing else of the environment reaches it.
start_gateway() {
  start "$1" '"listener":"proxy".*"address":"([^"]+)"|"address":"([^"]+)".*"listener":"proxy"' \
    env --ignore-environment OUTGATE_LISTEN=127.0.0.1:0 OUTGATE_ADMIN_LISTEN=127.0.0.1:0 \
    OUTGATE_INSPECT_LISTEN=off OUTGATE_LOG_FORMAT=json OUTGATE_DRAIN_DELAY=0s "${@:2}" "$outgate"
  proxy=${BASH_REMATCH[1]:-${BASH_REMATCH[2]}}
}
