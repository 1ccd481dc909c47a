"""What scripts/serve, scripts/stop and scripts/status do besides running the supervisor."""
