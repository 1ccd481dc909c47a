"""The process that starts, watches, restarts and stops TorchServe."""
