"""Implementation of `serve`, `status` and `stop`: start in the background or foreground, report status, stop."""
