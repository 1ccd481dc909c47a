"""Requests of the gateway to TorchServe: forwarding, retries, model descriptions and diagnosis."""
