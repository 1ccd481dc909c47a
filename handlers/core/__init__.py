"""The parts that all tasks share: the base handler, request parsing, errors, configuration and metrics."""
