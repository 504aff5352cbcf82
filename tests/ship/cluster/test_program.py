"""Prints the shell program of the chart's test pod, with the Service's name replaced by the address given."""

import re
import sys

import yaml

pod = yaml.safe_load(sys.stdin)
(container,) = pod["spec"]["containers"]
assert container["command"] == ["sh", "-ec"]
(program,) = container["args"]
program, replaced = re.subn(r"outgate\.egress\.svc\.cluster\.local", sys.argv[1], program)
assert replaced == 1
print(program)
