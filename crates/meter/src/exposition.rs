//! Text for Prometheus.
