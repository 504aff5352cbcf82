"""Holds what the kubelet says of its pods to what is expected of one: exits 1 if it is not so (yet).

Usage: pods.py ended|ready|gone NAME, with the kubelet's list of pods on standard input.
"""

import json
import sys

expected, name = sys.argv[1:]
# The kubelet adds the name of its node.
pods = {pod["metadata"]["name"]: pod["status"] for pod in json.load(sys.stdin)["items"] or []}
status = pods.get(f"{name}-node")
print(json.dumps(status))

if expected == "gone":
    assert status is None
elif expected == "ready":
    assert {"Ready": "True"}.items() <= {found["type"]: found["status"] for found in status["conditions"]}.items()
    assert all(found["restartCount"] == 0 for found in status["containerStatuses"])
else:
    assert status["phase"] == "Succeeded"
    (sidecar,), (program,) = status["initContainerStatuses"], status["containerStatuses"]
    for container in (sidecar, program):
        assert container["state"]["terminated"]["exitCode"] == 0 and container["restartCount"] == 0, container["name"]
    assert sidecar["state"]["terminated"]["startedAt"] <= program["state"]["terminated"]["startedAt"]
    assert sidecar["state"]["terminated"]["finishedAt"] >= program["state"]["terminated"]["finishedAt"]
