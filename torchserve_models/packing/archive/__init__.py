"""The .mar archive: its files, model configuration and provenance."""
