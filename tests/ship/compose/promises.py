"""Holds deploy/compose to what it promises: one way out for the workload, and files that are there."""

import json
import pathlib

import yaml

folder = pathlib.Path("deploy/compose")
compose = yaml.safe_load((folder / "compose.yaml").read_text())
services, networks = compose["services"], compose["networks"]
assert set(services) == {"gateway", "workload", "collector", "prometheus", "grafana"}

assert networks["inside"]["internal"] is True
assert services["workload"]["networks"] == ["inside"], "another network would be another way out"
others = {name for name, service in services.items() if "inside" in service["networks"]} - {"workload"}
assert others == {"gateway"}
for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
    assert services["workload"]["environment"][name] == "http://gateway:3128"

gateway = services["gateway"]
assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"] and gateway["security_opt"] == ["no-new-privileges:true"]
version = yaml.safe_load(pathlib.Path("helm/outgate/Chart.yaml").read_text())["appVersion"]
assert gateway["image"] == f"outgate:{version}"

for name, service in services.items():
    for volume in service.get("volumes", []):
        source = folder / volume.split(":")[0]
        assert source.exists(), f"{name} mounts {source}, which is not there"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name} is open to the network of the host"

(scrape,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["scrape_configs"]
assert scrape["static_configs"] == [{"targets": ["gateway:9090"]}]
collector = yaml.safe_load((folder / "collector.yaml").read_text())
assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
assert gateway["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
datasources = yaml.safe_load((folder / "grafana-datasources.yaml").read_text())["datasources"]
assert [source["url"] for source in datasources] == ["http://prometheus:9090"]
# What Grafana is given, since it is not run: where it looks for dashboards there is one, and it asks what is the default.
(default,) = [source for source in datasources if source["isDefault"]]
(provider,) = yaml.safe_load((folder / "grafana-dashboards.yaml").read_text())["providers"]
mounted = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
dashboards = [here for here, there in mounted if there.startswith(provider["options"]["path"] + "/")]
dashboard = json.loads((folder / dashboards[0]).read_text())
asked = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
assert asked["datasource"]["query"] == default["type"], "the dashboard would find no data source"
