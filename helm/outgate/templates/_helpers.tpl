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
{{- end -}}

{{- define "outgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{ include "outgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
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

{{/* Where workloads reach the gateway. */}}
{{- define "outgate.url" -}}
{{- printf "http://%s.%s.svc.%s:%v" (include "outgate.fullname" .) .Release.Namespace .Values.clusterDomain .Values.service.port -}}
{{- end -}}

{{/* The port of a listen address such as [::]:3128 or :3128. */}}
{{- define "outgate.portOf" -}}
{{- regexFind "[0-9]+$" (regexSplit "[,\\s]+" . -1 | first) -}}
{{- end -}}

{{- define "outgate.proxyPort" -}}
{{- include "outgate.portOf" (join "," .Values.config.listen | default "[::]:3128") -}}
{{- end -}}

{{- define "outgate.adminPort" -}}
{{- include "outgate.portOf" (default "[::]:9090" .Values.config.adminListen) -}}
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
{{- $delay := include "outgate.seconds" (default "5s" .Values.config.drainDelay) -}}
{{- $timeout := include "outgate.seconds" (default "25s" .Values.config.drainTimeout) -}}
{{- add $delay $timeout 5 -}}
{{- end -}}

{{/* Combinations that cannot work are refused, rather than found out by a pod that does not start. */}}
{{- define "outgate.validate" -}}
{{- if and (eq .Values.kind "DaemonSet") .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled needs kind: Deployment; a DaemonSet has one pod a node" -}}
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
{{- if and .Values.podDisruptionBudget.enabled (eq .Values.kind "Deployment") (not .Values.autoscaling.enabled) (ge (int .Values.podDisruptionBudget.minAvailable) (int .Values.replicaCount)) -}}
{{- fail "podDisruptionBudget.minAvailable leaves no replica that may be evicted: nodes could not be drained; raise replicaCount or disable the budget" -}}
{{- end -}}
{{- if eq (include "outgate.proxyPort" .) (include "outgate.adminPort" .) -}}
{{- fail "config.listen and config.adminListen name the same port" -}}
{{- end -}}
{{- end -}}
