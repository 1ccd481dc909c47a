"""The route that nginx calls to check an API key."""

import httpx
import pytest

from tests.unit.gateway.app_responses import is_error
from tests.unit.gateway.grpc.grpc_calls import call, infer
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile
from torchserve_models.gateway.settings import GatewaySettings


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
async def keyed(file, served):
    settings = GatewaySettings(summarizers={"t5": "texts", "bart": "other"}, key="secret", key_file=file.path)
    app = create_app(settings, httpx.MockTransport(served.handle_rest))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway", headers={"X-Gateway-Key": "secret"}
    ) as client:
        yield client


def create(file, *scopes, **options):
    key, text = ApiKey.create("shop", scopes, **options)
    file.add(key)
    return key, text


async def admit(http, path, text=""):
    response = await http.get(f"/admit/{path}", headers={"X-Api-Key": text} if text else {})
    assert response.content == b""
    return response.status_code, response.headers.get("x-admission", "")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("inference/texts", {"inference", "inference:texts"}),
        ("inference/images", {"inference"}),
        ("inference/a%25b", {"inference", "inference:a%b"}),
        ("inference", {"inference"}),
        ("any-model", {"inference", "inference:texts", "inference:a%b"}),
        ("summarizer", {"inference", "inference:texts"}),
        ("summarizer?model=t5", {"inference", "inference:texts"}),
        ("summarizer?model=bart", {"inference"}),
        ("summarizer?model=bart&model=t5", {"inference"}),
        ("summarizer?model=unknown", {"inference"}),
        ("summarizer?%6dodel=bart", {"inference"}),
        ("management", {"management"}),
        ("metrics", {"metrics"}),
        ("other", set()),
    ],
)
async def test_each_route_needs_its_scope(keyed, file, path, allowed):
    for scope in ("inference", "inference:texts", "inference:a%b", "management", "metrics"):
        key, text = create(file, scope)
        expected = (204, "") if scope in allowed else (403, "scope")
        assert await admit(keyed, path, text) == expected, scope
        response = await keyed.get(f"/admit/{path}", headers={"X-Api-Key": text})
        assert response.headers["x-edge-key-id"] == key.id


async def test_missing_unknown_and_revoked_keys_are_unauthorized(keyed, file):
    key, text = create(file, "inference")
    assert await admit(keyed, "inference/texts") == (401, "missing")
    for wrong in ("malformed", text[:-2] + "AA", "tsm_0123456789ab_" + "a" * 43):
        assert await admit(keyed, "inference/texts", wrong) == (401, "unknown")
    response = await keyed.get("/admit/inference/texts")
    assert response.headers["www-authenticate"] == "Bearer"
    assert await admit(keyed, "inference/texts", text) == (204, "")
    file.remove(key.id)
    assert await admit(keyed, "inference/texts", text) == (401, "unknown")


async def test_rate_is_checked_after_the_scope(keyed, file):
    _, text = create(file, "inference:texts", rate=1)
    assert await admit(keyed, "inference/images", text) == (403, "scope")
    assert await admit(keyed, "inference/texts", text) == (204, "")
    assert await admit(keyed, "inference/texts", text) == (403, "rate")


async def test_no_key_is_checked_without_a_key_file(keyed, file):
    _, text = create(file, "inference")
    file.path.unlink()
    assert await admit(keyed, "inference/texts", text) == (503, "")


async def test_only_nginx_can_use_the_route(keyed, file):
    _, text = create(file, "inference")
    for gateway_key in ("", "other"):
        headers = {"X-Api-Key": text, "X-Gateway-Key": gateway_key}
        assert is_error(await keyed.get("/admit/inference/texts", headers=headers), 404, "NotFound")


async def test_route_does_not_exist_without_keys(http):
    assert is_error(await http.get("/admit/inference/texts"), 404, "NotFound")


async def test_checks_are_counted_by_key_and_result(keyed, file):
    key, text = create(file, "metrics")
    await admit(keyed, "metrics", text)
    await admit(keyed, "management", text)
    await admit(keyed, "metrics")
    exposed = (await keyed.get("/gateway/metrics")).text
    for labels in (
        f'key="{key.id}",result="admitted"',
        f'key="{key.id}",result="scope"',
        'key="",result="missing"',
    ):
        assert f"gateway_key_checks_total{{{labels}}} 1.0" in exposed
    assert text not in exposed


PERMISSION_DENIED = 7


async def test_models_of_grpc_messages_are_checked(keyed, file):
    key, _ = create(file, "inference:images")
    all_models, _ = create(file, "inference")
    for key_id, name, is_denied in (
        (key.id, "images", False),
        (key.id, "texts", True),
        (all_models.id, "texts", False),
        ("", "images", True),
        ("0123456789ab", "images", True),
    ):
        headers = {"X-Edge-Key-Id": key_id}
        message = infer()
        message.model_name = name
        _, status, _ = await call(keyed, "ModelInfer", message, **headers)
        assert (status == PERMISSION_DENIED) is is_denied
        message = messages.ModelMetadataRequest(name=name)
        _, status, details = await call(keyed, "ModelMetadata", message, **headers)
        assert (status, "lacks the scope" in details) == (
            (PERMISSION_DENIED, True) if is_denied else (0, False)
        )
    message = messages.ModelReadyRequest(name="images")
    _, status, _ = await call(keyed, "ModelReady", message)
    assert status == 0
