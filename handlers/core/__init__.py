"""What both tasks share: the base handler, the door for requests, errors, typed configuration, metrics."""
