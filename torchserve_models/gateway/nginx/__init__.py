"""nginx's configuration, executable and working directory."""
