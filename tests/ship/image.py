"""Holds an image to what is promised of it.

Usage: image.py ARCHITECTURE REVISION FILES, with what `podman image inspect` shows of it on standard input; FILES is where
its files are mounted.
"""

import json
import struct
import sys
from pathlib import Path

MOST_BYTES = 20_000_000
# e_machine of the ELF header.
MACHINES = {"amd64": 62, "arm64": 183}
PT_INTERP = 3

architecture, revision, files = sys.argv[1], sys.argv[2], Path(sys.argv[3])
(image,) = json.load(sys.stdin)
config = image["Config"]
labels = config["Labels"]

assert image["Size"] < MOST_BYTES, f"{image['Size']} bytes"
assert image["Architecture"] == architecture and image["Os"] == "linux"
assert config["User"] == "65532:65532", "Kubernetes must see that it is not root"
assert config["Entrypoint"] == ["/outgate"] and not config.get("Cmd")
assert image["Healthcheck"]["Test"] == ["CMD", "/outgate", "healthcheck"]
assert set(config["ExposedPorts"]) == {"3128/tcp", "9090/tcp"}
assert labels["org.opencontainers.image.title"] == "outgate"
assert labels["org.opencontainers.image.revision"] == revision
found = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()}
assert found == {"outgate", "etc/ssl/certs/ca-certificates.crt"}, found

program = (files / "outgate").read_bytes()
assert program[:5] == b"\x7fELF\x02", "an ELF file of 64 bits"
(machine,) = struct.unpack_from("<H", program, 18)
assert machine == MACHINES[architecture], f"e_machine {machine}"
(headers,) = struct.unpack_from("<Q", program, 32)
size, count = struct.unpack_from("<HH", program, 54)
kinds = {struct.unpack_from("<I", program, headers + size * index)[0] for index in range(count)}
assert PT_INTERP not in kinds, "it needs a loader, so it is not static"
print(image["Size"], "bytes")
