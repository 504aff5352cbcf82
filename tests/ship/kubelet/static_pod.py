"""Prints the pod that a workload's template makes, as a file for a kubelet without an API server.

Usage: static_pod.py KIND NAME, with a manifest that has one workload of that kind on standard input. Such a pod can have no
ServiceAccount, for there is nobody to ask for it; nothing else is left out.
"""

import sys

import yaml

kind, name = sys.argv[1:]
(workload,) = (found for found in yaml.safe_load_all(sys.stdin) if found and found["kind"] == kind)
spec = workload["spec"]["template"]["spec"]
spec.pop("serviceAccountName", None)
for container in [*spec.get("initContainers", []), *spec["containers"]]:
    container["imagePullPolicy"] = "Never"
print(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}))
