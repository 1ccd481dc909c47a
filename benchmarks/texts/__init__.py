"""Summarization in scripts/bench: its models, workloads, systems, and what is promised of them."""
