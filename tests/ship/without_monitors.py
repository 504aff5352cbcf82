"""Prints the documents of a manifest that Kubernetes itself defines."""

import pathlib
import sys

for document in pathlib.Path(sys.argv[1]).read_text().split("\n---\n"):
    if "monitoring.coreos.com" not in document and "kind:" in document:
        print("---")
        print(document)
