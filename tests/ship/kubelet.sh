# shellcheck shell=bash
# shellcheck disable=SC2154 # run sets what both use.

# What only a kubelet does: a Job's pod ends although a sidecar that restarts runs beside its program, and the chart's probes
# and security context are its own reading of them. It is the real one, with containerd, in namespaces of its own and without
# an API server. Sourced by run, after image.sh.

node=$cache/node
# What holds a pod's namespaces: its name stands in containerd.toml too.
pause=localhost/outgate-ship-pause:latest
node_network=outgate-ship-node
node_process=

kubelet_checks() {
  remove_node
  check "the kubelet builds" build_kubelet
  check "an image that holds the namespaces of a pod" replacing "$pause" import_pause
  check "a node starts" start_node
  check "the kubelet finds the chart's pod ready" runs_chart
  check "a Job with the sidecar has its gateway, and ends" job_ends
  remove_node
}

build_kubelet() { (cd tests/ship/kubelet && CGO_ENABLED=0 retry go build -ldflags='-s -w' -o "$cache/" k8s.io/kubernetes/cmd/kubelet); }

import_pause() {
  local container
  container=$(buildah from scratch) &&
    buildah copy "$container" "$(command -v catatonit)" /catatonit &&
    buildah config --entrypoint '["/catatonit", "-P"]' "$container" &&
    buildah commit --rm "$container" "$pause"
}

start_node() {
  local file
  mkdir --parents "$node/pods" "$node/cni" || return
  for file in containerd.toml kubelet.yaml cni/network.conflist; do
    sed "s|@NODE@|$node|" "tests/ship/kubelet/${file#cni/}" >"$node/$file" || return
  done
  ip netns add "$node_network" && ip -netns "$node_network" link set lo up || return
  nsenter --net="/run/netns/$node_network" unshare --mount --pid --fork --kill-child --mount-proc \
    tests/ship/kubelet/node.sh "$cache/kubelet" "$node" &
  node_process=$!
  eventually test -S "$node/containerd.sock" &&
    give_image "$pause" "$pause" &&
    give_image "$image" registry.test/outgate:0.1.0 &&
    give_image "$debian" docker.io/library/report:1
}

on_node() { timeout 120 ctr --address "$node/containerd.sock" --namespace k8s.io "$@"; }

# give_image IMAGE NAME: what podman has, under the name that manifests call it.
give_image() {
  podman save "$1" | on_node images import - && { [ "$1" = "$2" ] || on_node images tag "$1" "$2"; }
}

# pod_is ended|ready|gone NAME
pod_is() {
  nsenter --net="/run/netns/$node_network" curl --silent --max-time 5 http://127.0.0.1:10255/pods | "$python" tests/ship/kubelet/pods.py "$@"
}

# is_seen ended|ready NAME: of the pod whose manifest is on standard input, which the kubelet has until then.
is_seen() {
  local status=0
  # Renamed into place, for the kubelet would read half a file too.
  cat >"$node/pod.yaml" && mv "$node/pod.yaml" "$node/pods/$2.yaml" || return
  eventually pod_is "$1" "$2" || status=1
  rm "$node/pods/$2.yaml" && eventually pod_is gone "$2" && return $status
}

runs_chart() {
  "$helm" template outgate "$chart" --set image.repository=registry.test/outgate --show-only templates/workload.yaml |
    "$python" tests/ship/kubelet/static_pod.py Deployment gateway | is_seen ready gateway
}

# The program of the Job reads the gateway's refusal, so it fails where that is not there from the start.
job_ends() { "$python" tests/ship/kubelet/static_pod.py Job report <"$cache/sidecar.yaml" | is_seen ended report; }

remove_node() {
  # unshare heeds nothing else; what is in its namespace of processes goes with it.
  [ -z "$node_process" ] || { kill -KILL "$node_process" && wait "$node_process"; } || true
  node_process=
  ip netns delete "$node_network" || true
  rm --recursive --force "$node"
} >/dev/null 2>&1
