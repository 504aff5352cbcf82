#!/bin/sh
# containerd and, once that listens, the kubelet, until they are ended. Usage: node.sh KUBELET DIRECTORY, in namespaces of
# their own.
containerd --config "$2/containerd.toml" >"$2/containerd.log" 2>&1 &
attempts=0
until [ -S "$2/containerd.sock" ]; do
  attempts=$((attempts + 1))
  [ "$attempts" -lt 150 ] || exit
  sleep 0.2
done
"$1" --config "$2/kubelet.yaml" --root-dir "$2/kubelet" --hostname-override node >"$2/kubelet.log" 2>&1
