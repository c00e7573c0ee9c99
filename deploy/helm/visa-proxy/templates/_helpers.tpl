{{- define "visa-proxy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "visa-proxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "visa-proxy.labels" -}}
{{ include "visa-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* visa.yaml: the address, port and folder are this chart's, whatever else is said. */}}
{{- define "visa-proxy.config" -}}
{{- $listen := dict "host" "0.0.0.0" "port" 8080 }}
{{- $own := dict "server" (merge $listen (.Values.config.server | default dict)) "policies" "/etc/visa-policies" }}
{{- toYaml (merge $own .Values.config) }}
{{- end }}

{{- define "visa-proxy.policies" -}}
{{- if and .Values.policies .Values.policiesConfigMap }}{{ fail "policies and policiesConfigMap: set one of them" }}{{ end }}
{{- if not (or .Values.policies .Values.policiesConfigMap) }}{{ fail "policies: at least one tenant's file, or policiesConfigMap" }}{{ end }}
{{- .Values.policiesConfigMap | default (printf "%s-policies" (include "visa-proxy.name" .)) }}
{{- end }}
