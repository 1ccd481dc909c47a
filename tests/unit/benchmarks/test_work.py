"""Requests for a server that somebody else has started."""

from benchmarks.work import address_of, images_to


def test_a_path_before_the_api_and_the_host_are_kept():
    [request] = images_to(address_of("http://example:81/models/"), "m", [b"x"]).requests
    assert request.startswith(b"POST /models/predictions/m HTTP/1.1\r\nHost: example:81\r\n")
