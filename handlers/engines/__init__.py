"""What executes a network: one file an engine, behind the small protocol in `base.py`."""
