"""Everything that runs inside a TorchServe worker; imported the same way in tests and inside an archive."""
