"""What both tasks share: the base handler, request parsing, errors, typed configuration, metrics."""
