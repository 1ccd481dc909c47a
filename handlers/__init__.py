"""Code that runs inside a TorchServe worker. It has the same import path in tests and in a model archive."""
