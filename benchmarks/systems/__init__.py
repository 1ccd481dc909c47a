"""The systems that are measured, and how they are started and put under load."""
