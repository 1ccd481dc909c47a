"""Start, supervise and stop the gateway and nginx."""
