// What the Prometheus operator defines: its module carries the CustomResourceDefinitions.
module outgate.test/ship/monitoring

go 1.24.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
