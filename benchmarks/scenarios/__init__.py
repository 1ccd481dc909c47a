"""The workloads: models, requests, and criteria for correct answers."""
