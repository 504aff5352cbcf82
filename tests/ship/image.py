"""Holds the image, as `podman image inspect` shows it, to what is promised of it."""

import json
import sys

MOST_BYTES = 20_000_000

(image,) = json.load(sys.stdin)
config = image["Config"]
labels = config["Labels"]

assert image["Size"] < MOST_BYTES, f"{image['Size']} bytes"
assert image["Architecture"] == "amd64" and image["Os"] == "linux"
assert config["User"] == "65532:65532", "Kubernetes must see that it is not root"
assert config["Entrypoint"] == ["/outgate"] and not config.get("Cmd")
assert image["Healthcheck"]["Test"] == ["CMD", "/outgate", "healthcheck"]
assert set(config["ExposedPorts"]) == {"3128/tcp", "9090/tcp"}
assert labels["org.opencontainers.image.title"] == "outgate"
assert labels["org.opencontainers.image.revision"] == sys.argv[1]
print(image["Size"], "bytes")
