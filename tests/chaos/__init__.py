"""Chaos test: run a server under faults and hostile clients, and check every answer and every readiness probe."""
