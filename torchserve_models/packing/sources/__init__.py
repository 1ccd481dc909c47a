"""Where a model's files come from: the hub, a folder, the starter weights, a state dict or a user's handler."""
