"""Interfaces to the operating system: process states, sockets, log files, systemd."""
