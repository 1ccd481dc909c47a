"""Which models get forms as bodies."""

import asyncio

import pytest

from torchserve_models.client import ModelNotFound, Unavailable
from torchserve_models.gateway.grpc import form_support
from torchserve_models.gateway.grpc.form_support import FormSupport
from torchserve_models.gateway.grpc.rest_calls import RestRequest

FORM = "multipart/form-data; boundary=b"


class Models:
    """Descriptions of models, by name and version."""

    def __init__(self):
        self.inputs = {("ours", None): [{"name": "image"}], ("ours", "2.0"): [], ("foreign", None): []}
        self.descriptions = 0

    async def describe(self, model, version):
        self.descriptions += 1
        if model == "broken":
            raise Unavailable("no answer")
        if (model, version) not in self.inputs:
            raise ModelNotFound(model)
        return {"inputs": self.inputs[model, version]}


@pytest.fixture
def models():
    return Models()


@pytest.fixture
def forms(models):
    return FormSupport(models.describe)


async def content_types(forms, model="ours", version=""):
    request = forms.adapt(
        RestRequest(model, version, "/predictions/m", {"content-type": FORM, "a": "b"}, b"x")
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (request.body, request.headers["a"]) == (b"x", "b")
    return request.headers["content-type"], request.headers.get("x-form-content-type")


async def test_model_of_the_base_class_gets_the_form_once_it_is_known(forms, models):
    assert await content_types(forms) == (FORM, None)
    assert await content_types(forms) == ("application/octet-stream", FORM)
    assert models.descriptions == 1


@pytest.mark.parametrize(
    ("model", "version"), [("foreign", ""), ("ours", "2.0"), ("absent", ""), ("broken", "")]
)
async def test_other_models_get_parts(forms, model, version):
    for _ in range(3):
        assert await content_types(forms, model, version) == (FORM, None)


async def test_old_knowledge_is_updated_and_then_not_used(forms, models, monkeypatch):
    await content_types(forms)
    models.inputs["ours", None] = []
    monkeypatch.setattr(form_support, "REFRESH_S", -1.0)
    assert await content_types(forms) == ("application/octet-stream", FORM)
    assert await content_types(forms) == (FORM, None)
    models.inputs["ours", None] = [{}]
    monkeypatch.setattr(form_support, "MAX_AGE_S", -1.0)
    for _ in range(3):
        assert await content_types(forms) == (FORM, None)


async def test_number_of_cached_models_is_limited(forms, monkeypatch):
    monkeypatch.setattr(form_support, "MAX_MODELS", 3)
    for number in range(10):
        await content_types(forms, f"model-{number}")
    assert len(forms._known) <= 3
