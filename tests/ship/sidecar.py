"""Holds the sidecar component to what it promises, for the Deployment and the Job of an example."""

import pathlib
import sys

import yaml

objects = list(yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()))
assert {found["kind"] for found in objects} == {"Deployment", "Job"}
for found in objects:
    pod = found["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always", "a Job would not end"
    assert {"name": "OUTGATE_LISTEN", "value": "127.0.0.1:3128"} in sidecar["env"]
    assert pod["enableServiceLinks"] is False
    names = {variable["name"] for variable in pod["containers"][0]["env"]}
    assert {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} == names
