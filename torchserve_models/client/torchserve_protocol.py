"""Predictions in TorchServe's native protocol, over REST and gRPC."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torchserve_models.client.call_types import (
    Call,
    CallSequence,
    RestCall,
    build_path,
    build_rpc_call,
    encode_json,
    import_stubs,
    read_json,
)
from torchserve_models.client.error_conversion import error_from_payload
from torchserve_models.client.errors import UnexpectedAnswer
from torchserve_models.client.names import check_present
from torchserve_models.client.results import Label, Scalar, Summary

T = TypeVar("T")
Parameters = Mapping[str, Scalar]


def read_labels(value: Any) -> list[Label]:
    """Parse the answer of an image classifier. Raises UnexpectedAnswer for any other answer."""
    try:
        return [Label(str(item["label"]), float(item["score"])) for item in value]
    except (TypeError, KeyError, ValueError):
        raise UnexpectedAnswer(f"expected a list of labels and scores, got {str(value)[:100]}") from None


def read_summaries(value: Any) -> list[Summary]:
    """Parse the answer of a summarizer. Raises UnexpectedAnswer for any other answer."""
    try:
        return [Summary(str(item["summary_text"]), bool(item.get("truncated", False))) for item in value]
    except (TypeError, KeyError, AttributeError):
        raise UnexpectedAnswer(f"expected a list of summaries, got {str(value)[:100]}") from None


class TorchServeRest:
    """`POST /predictions/{model}[/{version}]` with the Hugging Face inference convention's JSON."""

    def classify(
        self, model: str, image: bytes, parameters: Parameters, version: str | None
    ) -> Call[list[Label]]:
        if not parameters:
            return self._post(model, version, "application/octet-stream", image, read_labels)
        value = {"inputs": base64.b64encode(image).decode(), "parameters": dict(parameters)}
        return self._post(model, version, "application/json", encode_json(value), read_labels)

    def summarize(
        self, model: str, texts: tuple[str, ...], parameters: Parameters, version: str | None
    ) -> Call[list[Summary]]:
        value: dict[str, Any] = {"inputs": texts[0] if len(texts) == 1 else list(texts)}
        if parameters:
            value["parameters"] = dict(parameters)
        return self._post(model, version, "application/json", encode_json(value), read_summaries)

    def live(self) -> Call[bool]:
        return RestCall("inference", "GET", build_path("ping"), _is_healthy, resend="never")

    def _post(
        self, model: str, version: str | None, mime: str, body: bytes, read: Callable[[Any], T]
    ) -> RestCall[T]:
        path = build_path("predictions", model, *([version] if version is not None else []))
        return RestCall(
            "inference",
            "POST",
            path,
            lambda answer: read(read_json(answer)),
            {"content-type": mime},
            body,
            carries_deadline=True,
        )


class TorchServeGrpc:
    """`InferenceAPIsService`: a map of bytes, with the input in `data` and a JSON object in `parameters`."""

    service = "InferenceAPIsService"

    def classify(
        self, model: str, image: bytes, parameters: Parameters, version: str | None
    ) -> Call[list[Label]]:
        return self._predict(model, version, image, parameters, read_labels)

    def summarize(
        self, model: str, texts: tuple[str, ...], parameters: Parameters, version: str | None
    ) -> CallSequence[list[Summary]]:
        """Send one call per text, because the map holds one input."""
        summaries: list[Summary] = []
        for text in texts:
            summaries += yield self._predict(model, version, text.encode(), parameters, read_summaries)
        return summaries

    def live(self) -> Call[bool]:
        return build_rpc_call(
            import_stubs("inference"),
            self.service,
            "Ping",
            {},
            lambda answer: _is_healthy(answer.health),
            resend="never",
        )

    def _predict(
        self, model: str, version: str | None, data: bytes, parameters: Parameters, read: Callable[[Any], T]
    ) -> Call[T]:
        def read_prediction(answer: Any) -> T:
            value = read_json(answer.prediction)
            error = error_from_payload(value)  # TorchServe's gRPC answers OK even for errors
            if error:
                raise error
            return read(value)

        check_present(model, version)
        entries = {"data": data}
        if parameters:
            entries["parameters"] = encode_json(dict(parameters))
        fields = {
            "model_name": model,
            "model_version": version,
            "input": entries,
        }
        return build_rpc_call(
            import_stubs("inference"),
            self.service,
            "Predictions",
            fields,
            read_prediction,
            carries_deadline=True,
        )


def _is_healthy(body: bytes | str) -> bool:
    value = read_json(body)
    return isinstance(value, dict) and value.get("status") == "Healthy"
