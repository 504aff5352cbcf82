# shellcheck shell=bash
# shellcheck disable=SC2154 # run sets what both use.

# The compose example runs, but for Grafana, which no package registry has: its dashboard's queries are asked of a real
# Prometheus by tests/telemetry/run. Sourced by run, after image.sh.
#
# The file is the example's own, with tests/ship/compose/stand_ins.yaml over it: Debian's Prometheus, and the collector that
# tests/telemetry builds, for registries of images may be out of reach.

compose_project=outgate-ship-compose
compose_copy=$cache/deploy
export SHIP_GATEWAY=$image SHIP_DEBIAN=$debian SHIP_TESTS=$PWD/tests
export SHIP_PROMETHEUS=localhost/outgate-ship-prometheus:bookworm SHIP_COLLECTOR=localhost/outgate-ship-collector:latest

compose_checks() {
  remove_compose
  check "images that stand in for those of the compose example" stand_ins
  check "the compose example starts" start_compose
  check "its workload gets an allowed page" eventually compose_gets_page
  check "it reads why another is refused" compose_reads_refusal http://refused.test/page
  refused "it reaches no origin directly" "unreachable\|Could not connect\|Couldn't connect" compose_goes_round
  check "Prometheus has the gateway's metrics, and the rules" eventually prometheus_knows
  check "the collector has the trace" eventually collector_knows
  check "a change of the policy takes effect without a restart" compose_policy_changes
  check "the compose example ends" compose down
  echo "not run: Grafana, of which there is no package; what it is given was read above, its queries run in tests/telemetry"
  remove_compose
}

stand_ins() {
  podman image exists "$SHIP_PROMETHEUS" || import_prometheus || return
  replacing "$SHIP_COLLECTOR" import_collector
}

import_prometheus() {
  local container
  container=$(buildah from "$debian") &&
    retry buildah run --isolation chroot "$container" apt-get update --quiet=2 &&
    retry buildah run --isolation chroot "$container" apt-get install --quiet=2 --yes --no-install-recommends prometheus &&
    buildah config --entrypoint '["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp"]' \
      "$container" &&
    buildah commit --rm "$container" "$SHIP_PROMETHEUS"
}

import_collector() {
  local container
  (cd tests/telemetry/collector && CGO_ENABLED=0 retry go build -buildvcs=false -mod=readonly -o "$cache/collector" .) &&
    container=$(buildah from scratch) &&
    buildah copy "$container" "$cache/collector" /collector &&
    buildah config --entrypoint '["/collector"]' "$container" &&
    buildah commit --rm "$container" "$SHIP_COLLECTOR"
}

# On a copy, for its policy is changed.
compose() {
  "$cache/venv/bin/podman-compose" --in-pod false --project-name "$compose_project" \
    --file "$compose_copy/compose/compose.yaml" --file "$PWD/tests/ship/compose/stand_ins.yaml" "$@"
}

start_compose() {
  rm -rf "$compose_copy" &&
    cp --recursive deploy "$compose_copy" &&
    compose up --no-build --detach gateway workload collector prometheus origin &&
    eventually in_service gateway /outgate healthcheck
}

in_service() {
  local service=$1
  shift
  podman exec "${compose_project}_${service}_1" "$@"
}

compose_curl() { in_service workload curl --silent --show-error --max-time 10 "$@"; }
compose_gets_page() { [ "$(compose_curl --fail "${1:-http://example.com/page}")" = "the page" ]; }
compose_reads_refusal() { compose_curl "$1" | grep '"error":"host_not_allowed"'; }

compose_goes_round() {
  local address
  address=$(podman inspect "${compose_project}_origin_1" \
    --format "{{(index .NetworkSettings.Networks \"${compose_project}_outside\").IPAddress}}") &&
    compose_curl --noproxy '*' "http://$address/page"
}

prometheus_knows() {
  local answers
  answers=$(in_service prometheus curl --silent \
    'http://localhost:9090/api/v1/query?query=sum(outgate_requests_total)>0' http://localhost:9090/api/v1/rules) &&
    [[ $answers == *'"value":['* && $answers == *'"type":"alerting"'* ]]
}

collector_knows() { podman logs "${compose_project}_collector_1" 2>&1 | grep 'service.name: Str(outgate)'; }

compose_policy_changes() {
  sed --in-place 's/example\.com/refused.test/g' "$compose_copy/compose/policy/policy.yaml" &&
    eventually compose_reads_refusal http://example.com/page &&
    compose_gets_page http://refused.test/page
}

remove_compose() {
  compose down --timeout 1 || true
} >/dev/null 2>&1
