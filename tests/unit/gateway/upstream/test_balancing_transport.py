"""Distribution of requests among servers."""

import httpx
import pytest

from torchserve_models.gateway.upstream.balancing_transport import BalancingTransport


class Servers(httpx.AsyncBaseTransport):
    def __init__(self):
        self.answers = {}
        self.received = []

    async def handle_async_request(self, request):
        host = request.url.host
        assert request.headers["host"] == f"{host}:1"
        self.received.append(host)
        answer = self.answers.get(host, 200)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, stream=httpx.ByteStream(host.encode()))


@pytest.fixture
def servers():
    return Servers()


@pytest.fixture
def balancing(servers):
    return BalancingTransport(servers, ["http://a:1", "http://b:1"])


async def send(balancing):
    return await balancing.handle_async_request(
        httpx.Request("POST", "http://a:1/predictions/m", content=b"x")
    )


async def test_least_busy_server_gets_the_request(servers, balancing):
    first, second = await send(balancing), await send(balancing)
    assert servers.received == ["a", "b"]
    await second.aclose()
    await second.aclose()
    assert await (await send(balancing)).aread() == b"b"
    assert await first.aread() == b"a"
    assert await (await send(balancing)).aread() == b"a"


@pytest.mark.parametrize("answer", [429, 503, httpx.ConnectError("refused"), httpx.ReadError("broke")])
async def test_one_other_server_gets_a_refused_request(servers, balancing, answer):
    servers.answers["a"] = answer
    assert await (await send(balancing)).aread() == b"b"
    assert servers.received == ["a", "b"]


async def test_refusal_of_both_servers_is_returned(servers, balancing):
    servers.answers = {"a": 503, "b": 503}
    assert (await send(balancing)).status_code == 503
    assert len(servers.received) == 2


@pytest.mark.parametrize("answer", [400, httpx.ReadTimeout("late")])
async def test_other_errors_are_not_repeated(servers, balancing, answer):
    servers.answers["a"] = answer
    if isinstance(answer, int):
        assert (await send(balancing)).status_code == answer
    else:
        with pytest.raises(httpx.ReadTimeout):
            await send(balancing)
    assert servers.received == ["a"]
