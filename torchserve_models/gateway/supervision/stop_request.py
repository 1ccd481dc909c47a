"""The request to stop, which signal handlers set."""


class StopRequest:
    """Two plain flags, which are safe to set in a signal handler.

    The first request asks for a graceful stop (`requested`), the second one for an immediate stop (`now`).
    """

    def __init__(self) -> None:
        self.requested = False
        self.now = False

    def request(self) -> None:
        self.now = self.requested
        self.requested = True
