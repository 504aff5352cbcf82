"""Holds the rendered chart to what its values promise."""

import json
import pathlib
import sys

import yaml

folder = pathlib.Path(sys.argv[1])


def rendered(name: str) -> dict[str, list[dict]]:
    kinds: dict[str, list[dict]] = {}
    for found in yaml.safe_load_all((folder / f"{name}.yaml").read_text()):
        if found:
            kinds.setdefault(found["kind"], []).append(found)
    return kinds


def pod_of(workload: dict) -> dict:
    return workload["spec"]["template"]["spec"]


def env_of(workload: dict) -> dict[str, str]:
    (container,) = pod_of(workload)["containers"]
    return {variable["name"]: variable["value"] for variable in container.get("env", [])}


default, full, daemonset = rendered("default"), rendered("full"), rendered("daemonset")

# Closed and restricted by default.
(deployment,) = default["Deployment"]
pod = pod_of(deployment)
(container,) = pod["containers"]
assert env_of(deployment) == {}, "nothing is set, so nothing is allowed"
assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
assert container["securityContext"] == {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
assert pod["terminationGracePeriodSeconds"] == 5 + 25 + 5
assert deployment["spec"]["replicas"] == 2
assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
assert "NetworkPolicy" in default and "PodDisruptionBudget" in default
assert "HorizontalPodAutoscaler" not in default

# The fence: DNS, and the outside without the cluster.
(fence,) = default["NetworkPolicy"]
dns, outside = fence["spec"]["egress"]
assert {port["port"] for port in dns["ports"]} == {53}
assert "10.0.0.0/8" in outside["to"][0]["ipBlock"]["except"]
assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]
assert fence["spec"]["policyTypes"] == ["Ingress", "Egress"]

# What is set arrives, and only that.
(deployment,) = full["Deployment"]
assert env_of(deployment) == {
    "OUTGATE_ALLOW": "api.example.com\n*.example.org:443",
    "OUTGATE_DENY_ADDRESSES": "203.0.113.0/24",
    "OUTGATE_DRAIN_DELAY": "10s",
    "OUTGATE_DRAIN_TIMEOUT": "1m30s",
    "OUTGATE_MAX_CONNECTIONS_PER_CLIENT": "500",
    "OUTGATE_LOG_FORMAT": "json",
    "OUTGATE_ACCESS_LOG": "false",
    "OUTGATE_POLICY_FILE": "/etc/outgate/policy.yaml",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318",
}
assert pod_of(deployment)["terminationGracePeriodSeconds"] == 10 + 90 + 5
assert "replicas" not in deployment["spec"], "the autoscaler sets them"

# The policy is mounted as a directory, so that a change reaches the file.
(mount,) = pod_of(deployment)["containers"][0]["volumeMounts"]
assert mount["mountPath"] == "/etc/outgate" and "subPath" not in mount
policy = next(found for found in full["ConfigMap"] if found["metadata"]["name"].endswith("-policy"))
assert yaml.safe_load(policy["data"]["policy.yaml"])["rules"][0]["name"] == "github"

(scaler,) = full["HorizontalPodAutoscaler"]
assert {metric["type"] for metric in scaler["spec"]["metrics"]} == {"Resource", "Pods"}
assert "ServiceMonitor" in full and "PodMonitor" in daemonset
(rules,) = full["PrometheusRule"]
assert any("alert" in rule for group in rules["spec"]["groups"] for rule in group["rules"])
dashboard = next(
    found for found in full["ConfigMap"] if found["metadata"]["name"].endswith("-dashboard")
)
assert json.loads(dashboard["data"]["outgate.json"])["panels"]

# Workloads in named namespaces reach DNS and the gateway, and nothing else.
fences = {found["metadata"]["namespace"]: found for found in full["NetworkPolicy"]}
for namespace in ("shop", "payments"):
    egress = fences[namespace]["spec"]["egress"]
    assert fences[namespace]["spec"]["policyTypes"] == ["Egress"] and len(egress) == 2
    assert egress[1]["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "outgate"

environment = next(
    found for found in full["ConfigMap"] if found["metadata"]["name"].endswith("-proxy-env")
)["data"]
assert environment["HTTPS_PROXY"] == "http://gate-outgate.egress.svc.cluster.local:3128"
assert environment["no_proxy"] == environment["NO_PROXY"]
assert environment["NO_PROXY"].endswith(".cluster.local,10.96.0.0/12,10.244.0.0/16,10.0.0.0/8")

# One a node, with traffic kept on it.
(daemon,) = daemonset["DaemonSet"]
(service,) = daemonset["Service"]
assert service["spec"]["internalTrafficPolicy"] == "Local"
ports = {port["name"]: port["containerPort"] for port in pod_of(daemon)["containers"][0]["ports"]}
assert ports == {"proxy": 8080, "admin": 9090}
