"""The systems under measurement, one module each."""
