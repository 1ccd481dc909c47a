"""The Open Inference gRPC service, carried over HTTP/1.1."""
