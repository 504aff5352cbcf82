"""Holds the sidecar component to what it promises, for the Deployment and the Job of an example."""

import pathlib
import sys

import yaml

PROXY = "http://127.0.0.1:3128"

objects = {found["kind"]: found for found in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text())}
assert set(objects) == {"Deployment", "Job"}
for found in objects.values():
    pod = found["spec"]["template"]["spec"]
    sidecar = pod["initContainers"][0]
    assert sidecar["name"] == "outgate", "it must be ready before the other init containers start"
    assert sidecar["image"].startswith("registry.test/outgate:"), "it must come from where the nodes pull"
    assert sidecar["restartPolicy"] == "Always", "a Job would not end"
    assert {"name": "OUTGATE_LISTEN", "value": "127.0.0.1:3128"} in sidecar["env"]
    assert {"name": "OUTGATE_INSPECT_LISTEN", "value": "off"} in sidecar["env"]
    # A workload may serve 9090 itself.
    (port,) = sidecar["ports"]
    assert {"name": "OUTGATE_ADMIN_LISTEN", "value": f"[::]:{port['containerPort']}"} in sidecar["env"]
    assert port["containerPort"] == 19090
    for probe in ("startupProbe", "livenessProbe"):
        assert sidecar[probe]["httpGet"]["port"] == port["name"]
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            assert variables[name] == PROXY, (container["name"], name)
        assert variables["NO_PROXY"] == variables["no_proxy"] and ".svc" in variables["NO_PROXY"]

pod = objects["Deployment"]["spec"]["template"]["spec"]
assert {"name": "OUTGATE_ALLOW", "value": "api.example.com"} in pod["initContainers"][0]["env"]
assert [container["name"] for container in pod["initContainers"]] == ["outgate", "migrate"]
assert {"name": "MINE", "value": "kept"} in pod["containers"][0]["env"]
job = objects["Job"]["spec"]["template"]["spec"]
assert {"name": "OUTGATE_ALLOW", "value": ""} in job["initContainers"][0]["env"], "closed unless told otherwise"
