"""Readiness of models and server: observations, probes, repairs, and the HTTP server that publishes them."""
