"""What the operating system offers: process states, sockets, log files, systemd."""
