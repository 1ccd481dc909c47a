"""The results of a run: as JSON, as Markdown tables and as charts."""
