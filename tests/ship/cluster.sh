# shellcheck shell=bash
# shellcheck disable=SC2154 # run sets what both use.

# The chart's gateway runs: its pods, from the chart's own output, between a network of workloads that leads nowhere
# else and a network with an origin. Sourced by run, after image.sh.
#
# podman plays pods and ConfigMaps; what a cluster adds is done here as the cluster does it: replicas from the
# Deployment's template, readiness asked at the probe's path, a Service that lists the ready pods, a ConfigMap swapped by
# renaming a symbolic link, a rolling update that starts one pod before it stops one. NetworkPolicies are enforced by no
# one here; the network of the workload stands for the one it is under.

inside=outgate-ship-inside outside=outgate-ship-outside
workload=outgate-ship-workload origin=outgate-ship-origin origin_address=10.89.78.10
replicas=()

cluster_checks() {
  remove_cluster
  check "a gateway of two replicas, an origin and a workload start" start_cluster
  check "the pods keep what the chart says of their security" pods_are_restricted
  refused "the workload reaches no origin directly" "unreachable\|Could not connect\|Couldn't connect" from_workload \
    curl --silent --show-error --max-time 5 "http://$origin_address/page"
  check "it reaches an allowed page through the gateway" gets_page http://allowed.test/page
  check "it reaches it through a tunnel" gets_page http://allowed.test/page --proxytunnel
  check "it reads why another is refused" reads_refusal http://refused.test/page
  check "the test of the chart passes" helm_test
  check "a policy change takes effect without a restart" policy_changes
  check "no request is lost in a rolling restart" rolling_restart
  remove_cluster
}

render_gateway() {
  "$helm" template outgate "$chart" --namespace egress --values tests/ship/cluster/values.yaml --set "image.repository=${image%:*}" \
    --set "image.tag=${image##*:}" "$@"
}

start_cluster() {
  podman network create --internal --subnet 10.89.77.0/24 "$inside" &&
    podman network create --internal --subnet 10.89.78.0/24 "$outside" &&
    podman run --detach --name "$origin" --network "$outside:ip=$origin_address" \
      --volume "$PWD/tests/ship/cluster:/cluster:ro" --volume "$PWD/tests/clients/services:/services:ro" \
      --env PYTHONPATH=/services "$debian" python3 /cluster/origin.py "$origin_address" &&
    mkdir --parents "$cache/service" &&
    podman run --detach --name "$workload" --network "$inside" \
      --volume "$PWD/tests/ship/cluster:/cluster:ro" --volume "$cache/service:/service:ro" \
      "$debian" sleep infinity &&
    start_replica outgate-0 && start_replica outgate-1
}

# start_replica NAME: a pod of the Deployment, in the Service once it is ready.
start_replica() {
  render_gateway | "$python" tests/ship/cluster/replica.py "$1" >"$cache/$1.yaml" &&
    podman kube play --network "$inside" --network "$outside" "$cache/$1.yaml" &&
    eventually is_ready "$1" &&
    replicas+=("$1") &&
    list_endpoints
}

stop_replica() {
  local name=$1 kept=() replica
  # Stopping waits for the drain, and the Service must learn of it meanwhile.
  podman stop --time "$(grace_period)" "$name-outgate" &
  local stopping=$!
  eventually is_not_ready "$name" || return
  for replica in "${replicas[@]}"; do [ "$replica" = "$name" ] || kept+=("$replica"); done
  replicas=("${kept[@]}")
  list_endpoints && wait "$stopping" &&
    [ "$(podman inspect "$name-outgate" --format '{{.State.ExitCode}}')" = 0 ] &&
    podman pod rm --force "$name"
}

grace_period() { render_gateway | sed --quiet 's/.*terminationGracePeriodSeconds: //p'; }

address_of() {
  podman inspect "$1-outgate" --format "{{(index .NetworkSettings.Networks \"$inside\").IPAddress}}"
}

list_endpoints() {
  local replica addresses=()
  for replica in "${replicas[@]}"; do addresses+=("$(address_of "$replica")"); done
  printf '%s\n' "${addresses[@]}" >"$cache/service/next" && mv "$cache/service/next" "$cache/service/endpoints"
}

readiness_status() { from_workload curl --silent --output /dev/null --write-out '%{http_code}' "http://$(address_of "$1"):9090/readyz"; }
is_ready() { [ "$(readiness_status "$1")" = 200 ]; }
is_not_ready() { [ "$(readiness_status "$1")" != 200 ]; }

from_workload() { podman exec "$workload" "$@"; }
first_endpoint() { head --lines=1 "$cache/service/endpoints"; }

# at_every_endpoint COMMAND…: through each gateway in turn.
at_every_endpoint() {
  local endpoint
  for endpoint in $(<"$cache/service/endpoints"); do "$@" || return; done
}

# Through the first gateway, unless at_every_endpoint says which.
through_gateway() { from_workload curl --silent --show-error --max-time 10 --proxy "http://${endpoint:-$(first_endpoint)}:3128" "$@"; }
gets_page() { [ "$(through_gateway --fail "$@")" = "the page" ]; }
reads_refusal() {
  local answer
  answer=$(through_gateway --include "$@") &&
    [[ $answer == "HTTP/1.1 403 egress denied: host_not_allowed"* && $answer == *'{"error":"host_not_allowed","target":"refused.test:80",'* ]]
}

is_not_allowed() { [[ $(through_gateway "$1") == *'"error":"host_not_allowed"'* ]]; }

pods_are_restricted() {
  podman inspect "${replicas[@]/%/-outgate}" | "$python" tests/ship/cluster/restricted.py
}

# The program of the chart's test pod, with the one thing changed that only a cluster has: the name of the Service.
helm_test() {
  render_gateway --set tests.allowedUrl=http://allowed.test/page --show-only templates/tests/egress.yaml |
    "$python" tests/ship/cluster/test_program.py "$(first_endpoint)" | podman exec --interactive "$workload" sh -e
}

policy_changes() {
  local before after volume
  before=$(started_at) &&
    volume=$(podman volume inspect outgate-policy --format '{{.Mountpoint}}') &&
    render_gateway --set-json 'policy={"rules":[{"name":"other","hosts":["refused.test"],"addresses":["10.89.78.0/24"]}]}' \
      --show-only templates/policy.yaml | "$python" tests/ship/cluster/swap_configmap.py "$volume" &&
    at_every_endpoint eventually gets_page http://refused.test/page &&
    at_every_endpoint is_not_allowed http://allowed.test/page &&
    render_gateway --show-only templates/policy.yaml | "$python" tests/ship/cluster/swap_configmap.py "$volume" &&
    at_every_endpoint eventually gets_page http://allowed.test/page &&
    after=$(started_at) && [ "$before" = "$after" ]
}

started_at() { podman inspect "${replicas[@]/%/-outgate}" --format '{{.State.StartedAt}}'; }

# Workers with a connection a request, with kept-alive connections and with tunnels, while both replicas are replaced.
rolling_restart() {
  local status=0
  podman exec "$workload" rm -f /tmp/stop
  podman exec "$workload" python3 /cluster/workload.py >"$cache/workload.log" 2>&1 &
  local working=$!
  { start_replica outgate-2 && stop_replica outgate-0 && start_replica outgate-3 && stop_replica outgate-1; } || status=1
  podman exec "$workload" touch /tmp/stop
  wait "$working" || status=1
  cat "$cache/workload.log"
  return $status
}

# What is not there need not go; what does not go would make the next start fail, and that is checked.
remove_cluster() {
  podman pod rm --force --time 1 --ignore outgate-0 outgate-1 outgate-2 outgate-3 || true
  podman rm --force --time 1 --ignore "$workload" "$origin" || true
  podman volume rm --force outgate-policy || true
  podman network rm --force "$inside" "$outside" || true
} >/dev/null 2>&1
