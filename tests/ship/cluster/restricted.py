"""Holds the running containers of the gateway, as `podman inspect` shows them, to the chart's security context."""

import json
import sys

containers = json.load(sys.stdin)
assert len(containers) == 2
for container in containers:
    host = container["HostConfig"]
    assert container["Config"]["User"] == "65532:65532"
    assert host["ReadonlyRootfs"] is True
    assert not container["EffectiveCaps"] and not container["BoundingCaps"], container["BoundingCaps"]
    assert "no-new-privileges" in host["SecurityOpt"]
    (mount,) = (found for found in container["Mounts"] if found["Destination"] == "/etc/outgate")
    assert mount["RW"] is False
