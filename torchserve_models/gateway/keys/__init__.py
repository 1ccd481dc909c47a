"""API keys: their file, their checks, and the route that nginx calls for each request."""
