"""What Prometheus and the OpenTelemetry Collector see of a gateway under traffic."""
