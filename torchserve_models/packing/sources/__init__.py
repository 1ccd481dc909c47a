"""Sources of model files: the hub, local folders, starter weights, state dicts and custom handlers."""
