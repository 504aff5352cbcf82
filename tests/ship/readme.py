"""Holds what the READMEs install to what they say of it: `shop` reaches the gateway alone, has the proxy variables, and the
test gets an allowed page. Prints the proxy variables of `shop`, one a line."""

import sys
from pathlib import Path

import yaml

rendered = yaml.safe_load_all(Path(sys.argv[1]).read_text())
objects = {(found["kind"], found["metadata"]["namespace"]): found for found in rendered if found}
(container,) = objects["Deployment", "egress"]["spec"]["template"]["spec"]["containers"]
assert container["env"] == [{"name": "OUTGATE_ALLOW", "value": "example.com"}]
assert container["image"].startswith("REGISTRY/outgate:")
assert objects["NetworkPolicy", "shop"]["spec"]["policyTypes"] == ["Egress"]
assert objects["ConfigMap", "shop"]["metadata"]["name"] == "outgate-proxy-env"
(program,) = objects["Pod", "egress"]["spec"]["containers"][0]["args"]
assert 'echo "an allowed page: https://example.com/"' in program
for name, value in objects["ConfigMap", "shop"]["data"].items():
    print(f"{name}={value}")
