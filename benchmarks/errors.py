"""What keeps a benchmark, or one system of it, from running; each message is for a person."""


class BenchError(Exception):
    """The run cannot go on: a wrong option, a missing folder."""


class Unavailable(BenchError):
    """One system cannot be installed or started here: it becomes a row with this reason."""


def last_line(text: str, otherwise: str = "it said nothing") -> str:
    """The last line of what a program printed, which mostly tells why it failed."""
    return (text.strip().splitlines() or [otherwise])[-1]
