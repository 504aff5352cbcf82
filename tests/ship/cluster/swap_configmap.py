"""Puts a ConfigMap into a mounted directory as the kubelet does: a new directory beside the old, then one rename.

Usage: swap_configmap.py DIRECTORY, with the ConfigMap's manifest on standard input. The names in the directory are
links to `..data/NAME`, and `..data` is the link that is renamed.
"""

import os
import sys
import tempfile
from pathlib import Path

import yaml

directory = Path(sys.argv[1])
configmap = yaml.safe_load(sys.stdin)


def point(link: Path, target: str) -> None:
    """Makes `link` a link to `target`, in one step for those who read it."""
    beside = link.with_name("..next")
    beside.symlink_to(target)
    os.replace(beside, link)


versioned = Path(tempfile.mkdtemp(prefix="..", dir=directory))
versioned.chmod(0o755)
for name, text in configmap["data"].items():
    (versioned / name).write_text(text)
point(directory / "..data", versioned.name)
for name in configmap["data"]:
    point(directory / name, f"..data/{name}")
