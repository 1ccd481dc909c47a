"""Start of the front end, and its restart with the same models."""
