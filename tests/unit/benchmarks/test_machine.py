"""What is told of the machine."""

from benchmarks.machine import command


def test_the_command_is_told_without_folders():
    typed = ["--quick", "--out", "/home/me", "--work=/home/me", "--seconds", "2"]
    assert command(typed) == "scripts/bench --quick --seconds 2"
