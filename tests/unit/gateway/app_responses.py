"""Settings of the gateway in tests, and checks of its responses."""

from torchserve_models.gateway.settings import GatewaySettings

SETTINGS = GatewaySettings(
    image_model="images", summarizers={"t5": "texts", "bart": "other"}, max_body_bytes=2**20
)


def is_error(response, code, error_type):
    body = response.json()
    assert (response.status_code, body["code"], body["type"]) == (code, code, error_type)
    assert body["error"] == body["message"]
    return True
