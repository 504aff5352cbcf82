{{- define "outgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "outgate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "outgate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "outgate.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "outgate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "outgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* What the pod of `helm test` has instead: as a gateway it would be fenced like one. */}}
{{- define "outgate.testLabels" -}}
app.kubernetes.io/name: {{ include "outgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{- define "outgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "outgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "outgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "outgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "outgate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A value as the gateway reads it. Helm takes whole numbers for floating ones, and would write 1e+06. */}}
{{- define "outgate.text" -}}
{{- if kindIs "slice" . -}}
{{- join "\n" . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* The items of a list, of which one text may have several, as a variable may. */}}
{{- define "outgate.items" -}}
{{- without (regexSplit "[,\\s]+" (join "," .) -1) "" | toJson -}}
{{- end -}}

{{/* Where workloads reach the gateway. */}}
{{- define "outgate.url" -}}
{{- printf "http://%s.%s.svc.%s:%v" (include "outgate.fullname" .) .Release.Namespace .Values.clusterDomain .Values.service.port -}}
{{- end -}}

{{/* The port of a listen address such as [::]:3128 or :3128. */}}
{{- define "outgate.portOf" -}}
{{- regexFind "[0-9]+$" (regexSplit "[,\\s]+" . -1 | first) -}}
{{- end -}}

{{/* What ports, probes and the grace period follow from. */}}
{{- define "outgate.known" -}}
{{- $defaults := dict "listen" (list "[::]:3128") "adminListen" "[::]:9090" "drainDelay" "5s" "drainTimeout" "25s" -}}
{{- range $key, $default := $defaults -}}
{{- $_ := set $defaults $key (default $default (get $.Values.config $key)) -}}
{{- end -}}
{{- toJson $defaults -}}
{{- end -}}

{{- define "outgate.proxyPort" -}}
{{- include "outgate.portOf" ((include "outgate.known" . | fromJson).listen | join ",") -}}
{{- end -}}

{{- define "outgate.adminPort" -}}
{{- include "outgate.portOf" (include "outgate.known" . | fromJson).adminListen -}}
{{- end -}}

{{/* Whole seconds of a duration such as 250ms, 10s, 1m30s, rounded up. */}}
{{- define "outgate.seconds" -}}
{{- $milliseconds := 0 -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $milliseconds = add $milliseconds (mul (trimSuffix $unit .) (get $units $unit)) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{/* The drain, and a moment for what follows it. */}}
{{- define "outgate.terminationGracePeriodSeconds" -}}
{{- $known := include "outgate.known" . | fromJson -}}
{{- $delay := include "outgate.seconds" $known.drainDelay -}}
{{- $timeout := include "outgate.seconds" $known.drainTimeout -}}
{{- add $delay $timeout 5 -}}
{{- end -}}

{{/* Combinations that cannot work are refused, rather than found out by a pod that does not start. */}}
{{- define "outgate.validate" -}}
{{- if and (eq .Values.kind "DaemonSet") .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled needs kind: Deployment; a DaemonSet has one pod a node" -}}
{{- end -}}
{{- $surges := ne (.Values.updateStrategy.maxSurge | toString | trimSuffix "%") "0" -}}
{{- $does_without := ne (.Values.updateStrategy.maxUnavailable | toString | trimSuffix "%") "0" -}}
{{- if not (or $surges $does_without) -}}
{{- fail "updateStrategy.maxSurge and updateStrategy.maxUnavailable are both 0: no pod could be replaced" -}}
{{- end -}}
{{- if and (eq .Values.kind "DaemonSet") $surges $does_without -}}
{{- fail "updateStrategy.maxSurge and updateStrategy.maxUnavailable are both set: a DaemonSet takes one of them; set the other to 0" -}}
{{- end -}}
{{- with .Values.service.trafficDistribution -}}
{{- $least := eq . "PreferClose" | ternary "1.31" "1.34" -}}
{{- if semverCompare (printf "<%s.0-0" $least) $.Capabilities.KubeVersion.Version -}}
{{- fail (printf "service.trafficDistribution: %s needs Kubernetes %s, and this is %s" . $least $.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.policy .Values.config.policyFile -}}
{{- fail "policy and config.policyFile both say where the policy comes from; set one of them" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and podMonitor.enabled would scrape every pod twice; enable one of them" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- $least := ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled -}}
{{- if and .Values.podDisruptionBudget.enabled (eq .Values.kind "Deployment") (ge (int .Values.podDisruptionBudget.minAvailable) (int $least)) -}}
{{- fail "podDisruptionBudget.minAvailable leaves no replica that may be evicted: nodes could not be drained; raise replicaCount (with autoscaling, minReplicas) or disable the budget" -}}
{{- end -}}
{{- range $key, $text := dict "listen" (join "," .Values.config.listen) "adminListen" (default "" .Values.config.adminListen) -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" $text -}}
{{- fail (printf "config.%s is %s: nothing outside the pod reaches loopback" $key $text) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "config" "policyFile" -}}
{{- $path := get $.Values.config $key -}}
{{- if and $path (ne $path "none") (not $.Values.extraVolumeMounts) -}}
{{- fail (printf "config.%s names %s, and extraVolumeMounts mounts nothing there" $key $path) -}}
{{- end -}}
{{- end -}}
{{- range .Values.env -}}
{{- if hasPrefix "OUTGATE_" .name -}}
{{- fail (printf "env: %s belongs under config" .name) -}}
{{- end -}}
{{- end -}}
{{- if has .Release.Namespace .Values.workloadNetworkPolicy.namespaces -}}
{{- fail (printf "workloadNetworkPolicy.namespaces has %s, where the gateway is: it would fence the gateway too; install into another namespace" .Release.Namespace) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.targetTunnelsPerPod)) -}}
{{- fail "autoscaling.enabled needs targetCPUUtilizationPercentage or targetTunnelsPerPod: there is nothing to scale by" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail "autoscaling.targetCPUUtilizationPercentage is a share of resources.requests.cpu, which is not set" -}}
{{- end -}}
{{- $ports := list -}}
{{- range include "outgate.items" .Values.config.listen | fromJsonArray -}}
{{- $ports = append $ports (regexFind "[0-9]+$" .) -}}
{{- end -}}
{{- if gt (len (uniq $ports)) 1 -}}
{{- fail (printf "config.listen names the ports %s: the Service leads to one of them; listen on one port" (uniq $ports | join ", ")) -}}
{{- end -}}
{{- if eq (int .Values.service.port) (int .Values.service.adminPort) -}}
{{- fail "service.port and service.adminPort are the same port" -}}
{{- end -}}
{{- if eq (include "outgate.proxyPort" .) (include "outgate.adminPort" .) -}}
{{- fail "config.listen and config.adminListen name the same port" -}}
{{- end -}}
{{- end -}}

{{/* What a workload needs in its environment, in both spellings: some programs read only one of them. */}}
{{- define "outgate.proxyEnv" -}}
{{- $url := include "outgate.url" . | quote -}}
{{- $local := list "localhost" "127.0.0.1" "::1" ".svc" (printf ".%s" .Values.clusterDomain) -}}
{{- $direct := concat $local (default list .Values.proxyEnv.clusterRanges) (default list .Values.proxyEnv.noProxy) | uniq | join "," | quote -}}
HTTP_PROXY: {{ $url }}
HTTPS_PROXY: {{ $url }}
NO_PROXY: {{ $direct }}
http_proxy: {{ $url }}
https_proxy: {{ $url }}
no_proxy: {{ $direct }}
# Node.js does not read the others without it.
NODE_USE_ENV_PROXY: "1"
{{- end -}}

{{/* An address as the range of that address alone. */}}
{{- define "outgate.range" -}}
{{- if contains "/" . }}{{ . }}{{ else if contains ":" . }}{{ . }}/128{{ else }}{{ . }}/32{{ end -}}
{{- end -}}

{{/* The egress rule for DNS. An empty list in it would be everywhere, and every port. */}}
{{- define "outgate.dnsRule" -}}
{{- if and .Values.networkPolicy.dns .Values.networkPolicy.dnsPorts -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - { protocol: UDP, port: {{ . }} }
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
{{- end -}}
{{- end -}}

{{/* Ranges the fence closes, by family: those it is told to, and those that workloads reach without the gateway. */}}
{{- define "outgate.clusterRanges" -}}
{{- $ipv4 := default list .Values.networkPolicy.clusterRanges.ipv4 -}}
{{- $ipv6 := default list .Values.networkPolicy.clusterRanges.ipv6 -}}
{{- range .Values.proxyEnv.clusterRanges -}}
{{- $range := include "outgate.range" . -}}
{{- if contains ":" . -}}
{{- $ipv6 = append $ipv6 $range -}}
{{- else -}}
{{- $ipv4 = append $ipv4 $range -}}
{{- end -}}
{{- end -}}
{{- dict "ipv4" (uniq $ipv4) "ipv6" (uniq $ipv6) | toJson -}}
{{- end -}}

{{/* Ranges the fence opens: those it is told to, and those the gateway's own address guard lets through, which are targets
that are addresses as well. */}}
{{- define "outgate.allowedRanges" -}}
{{- $written := concat (default list .Values.networkPolicy.allowRanges) (default list .Values.config.allowAddresses) -}}
{{- $hosts := list -}}
{{- range include "outgate.items" .Values.config.allow | fromJsonArray -}}
{{- $authority := regexReplaceAll "^(?i:http)://(\\[[^]]*\\][^/]*|[^/]*).*" . "${1}" -}}
{{- $hosts = append $hosts (regexReplaceAll "^(\\[.*\\]|[^:]*):[^:]*$" $authority "${1}") -}}
{{- end -}}
{{- range .Values.policy.rules -}}
{{- if ne .action "deny" -}}
{{- $written = concat $written (default list .addresses) -}}
{{- $hosts = concat $hosts .hosts -}}
{{- end -}}
{{- end -}}
{{- range $hosts -}}
{{- $host := . | trimPrefix "[" | trimSuffix "]" -}}
{{- if regexMatch "^([0-9]+(\\.[0-9]+){3}|[0-9a-fA-F.]*:[0-9a-fA-F.:]*)(/[0-9]+)?$" $host -}}
{{- $written = append $written $host -}}
{{- end -}}
{{- end -}}
{{- $ranges := list -}}
{{- range include "outgate.items" $written | fromJsonArray -}}
{{- $ranges = append $ranges (include "outgate.range" .) -}}
{{- end -}}
{{- $ranges | uniq | toJson -}}
{{- end -}}

{{/* The name servers of config.dnsServers, 10.0.0.10, [fd00::a]:5353 or fd00::a, as ranges and ports. */}}
{{- define "outgate.nameServers" -}}
{{- $servers := list -}}
{{- range without (include "outgate.items" .Values.config.dnsServers | fromJsonArray) "resolv.conf" -}}
{{- $address := . -}}
{{- $port := "53" -}}
{{- if regexMatch "^([0-9.]+|\\[.*\\]):[0-9]+$" . -}}
{{- $port = regexFind "[0-9]+$" . -}}
{{- $address = trimSuffix (printf ":%s" $port) . -}}
{{- end -}}
{{- $address = $address | trimPrefix "[" | trimSuffix "]" -}}
{{- $servers = append $servers (dict "range" (include "outgate.range" $address) "port" $port) -}}
{{- end -}}
{{- toJson $servers -}}
{{- end -}}

{{/* enforce or report, as far as the chart knows: a file of one's own may say otherwise. */}}
{{- define "outgate.mode" -}}
{{- .Values.config.mode | default .Values.policy.mode | default "enforce" -}}
{{- end -}}

{{/* What the answer to a request for a name on no list has in it, or may have: not everyone refuses it. */}}
{{- define "outgate.unlistedAnswer" -}}
{{- $hosts := list -}}
{{- range .Values.policy.rules -}}
{{- $hosts = concat $hosts .hosts -}}
{{- end -}}
{{- if or (has "*" $hosts) (eq (include "outgate.mode" .) "report") .Values.config.config .Values.config.policyFile -}}
"error":"
{{- else -}}
"error":"host_not_allowed"
{{- end -}}
{{- end -}}

{{/* The environment of the gateway; empty if nothing is set. */}}
{{- define "outgate.env" -}}
{{- $config := .Values.config }}
{{- if not (has $config.config (list nil "" "none")) }}
{{- /* The file could say otherwise, and the chart does not read it: variables win over it. */ -}}
{{- $config = merge (include "outgate.known" . | fromJson) $config }}
{{- end }}
{{- range $key, $value := $config }}
{{- $text := include "outgate.text" $value }}
{{- if $text }}
- name: OUTGATE_{{ snakecase $key | upper }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- if .Values.policy }}
- name: OUTGATE_POLICY_FILE
  value: /etc/outgate/policy.yaml
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}
