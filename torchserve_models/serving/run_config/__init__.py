"""Configuration of one run: settings, ports, memory budget, run folder and state file."""
