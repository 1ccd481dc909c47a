"""Runs a server under faults and hostile clients, and checks every answer and readiness against what is true."""
