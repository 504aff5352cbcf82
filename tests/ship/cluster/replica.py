"""Prints what a Deployment makes of its template: the ConfigMaps it mounts, and one pod of the name given.

Two things are left out that podman 4 would do wrongly: ports, which it publishes on the host, where two replicas would
collide; and probes, which it runs with a curl inside the container. The caller asks for readiness itself.
"""

import sys

import yaml

objects = [found for found in yaml.safe_load_all(sys.stdin) if found]
(deployment,) = (found for found in objects if found["kind"] == "Deployment")
template = deployment["spec"]["template"]
(container,) = template["spec"]["containers"]
for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
    assert container.pop(probe)["httpGet"]["port"] == "admin"
ports = {port["name"]: port["containerPort"] for port in container.pop("ports")}
assert ports == {"proxy": 3128, "admin": 9090}
container["imagePullPolicy"] = "Never"

mounted = {volume["configMap"]["name"] for volume in template["spec"]["volumes"]}
pod = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": sys.argv[1], "labels": template["metadata"]["labels"]},
    "spec": template["spec"],
}
configmaps = [found for found in objects if found["kind"] == "ConfigMap" and found["metadata"]["name"] in mounted]
print(yaml.safe_dump_all([*configmaps, pod]))
