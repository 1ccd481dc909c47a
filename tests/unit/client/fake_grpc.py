"""A fake of TorchServe's gRPC services, with the models of fake_torchserve.

The answers have the format of TorchServe 0.12: errors inside OK answers, BYTES outputs in JSON quotes,
dropped Open Inference parameters, Java class names in the details.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.unit.client.fake_torchserve import FakeTorchServe, Refused, predict, tensors
from torchserve_models.client._stubs import inference_pb2 as inference
from torchserve_models.client._stubs import inference_pb2_grpc as inference_grpc
from torchserve_models.client._stubs import management_pb2 as management
from torchserve_models.client._stubs import management_pb2_grpc as management_grpc
from torchserve_models.client._stubs import open_inference_grpc_pb2 as open_inference
from torchserve_models.client._stubs import open_inference_grpc_pb2_grpc as open_inference_grpc
from torchserve_models.client.endpoints import Endpoints


@contextmanager
def over_grpc(fake: FakeTorchServe) -> Iterator[Endpoints]:
    """Serve all three services on a free port and yield the endpoints."""
    server = grpc.server(ThreadPoolExecutor(4))
    inference_grpc.add_InferenceAPIsServiceServicer_to_server(Inference(fake), server)
    open_inference_grpc.add_GRPCInferenceServiceServicer_to_server(OpenInference(fake), server)
    management_grpc.add_ManagementAPIsServiceServicer_to_server(Management(fake), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Endpoints(grpc_inference=f"127.0.0.1:{port}", grpc_management=f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def abort(context: grpc.ServicerContext, error: Refused, status: grpc.StatusCode) -> None:
    """Abort a call with TorchServe's details: the message, then the Java class."""
    context.abort(status, f"{error.value['message']}\norg.pytorch.serve.archive.model.{error.value['type']}")


class Inference(inference_grpc.InferenceAPIsServiceServicer):
    def __init__(self, fake: FakeTorchServe) -> None:
        self.fake = fake

    def Ping(self, request, context):
        self.fake.received.append("Ping")
        return inference.TorchServeHealthResponse(health='{\n  "status": "Healthy"\n}\n')

    def Predictions(self, request, context):
        self.fake.received.append("Predictions")
        self.fake.inputs.append(dict(request.input))
        self.fake.metadata.append(dict(context.invocation_metadata()))
        parameters = json.loads(request.input["parameters"]) if "parameters" in request.input else {}
        try:
            if self.fake.deaths and self.fake.deaths.pop(0):
                raise Refused(500, "InternalServerException", "Worker died.")
            value: Any = predict(request.model_name, [request.input["data"]], parameters)
        except Refused as error:
            if error.value["type"].endswith("Exception"):
                abort(context, error, grpc.StatusCode.INTERNAL)
            value = error.value
        return inference.PredictionResponse(prediction=json.dumps(value, indent=2).encode())


class OpenInference(open_inference_grpc.GRPCInferenceServiceServicer):
    def __init__(self, fake: FakeTorchServe) -> None:
        self.fake = fake

    def ServerLive(self, request, context):
        self.fake.received.append("ServerLive")
        return open_inference.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):
        return open_inference.ServerReadyResponse(ready=True)

    def ModelReady(self, request, context):
        if request.name == "absent":
            abort(
                context, Refused(404, "ModelNotFoundException", "Model not found"), grpc.StatusCode.NOT_FOUND
            )
        return open_inference.ModelReadyResponse(ready=self.fake.status == "READY")

    def ModelMetadata(self, request, context):
        return open_inference.ModelMetadataResponse(name=request.name, versions=["1.0", "2.0"])

    def ModelInfer(self, request, context):
        self.fake.received.append("ModelInfer")
        payloads: list[bytes] = []
        parameters: dict[str, Any] = {}  # TorchServe drops request.parameters: tensors are the only way
        for tensor in request.inputs:
            ((_, data),) = ((field.name, list(value)) for field, value in tensor.contents.ListFields())
            if tensor.name in ("image", "text"):
                payloads = data
            else:
                parameters[tensor.name] = data[0].decode() if tensor.datatype == "BYTES" else data[0]
        try:
            outputs = tensors(request.model_name, predict(request.model_name, payloads, parameters))
        except Refused as error:
            if error.value["type"].endswith("Exception"):
                abort(context, error, grpc.StatusCode.INTERNAL)
            outputs = [
                {"name": "error", "datatype": "BYTES", "shape": [1], "data": [json.dumps(error.value)]}
            ]
        reply = open_inference.ModelInferResponse(
            id=request.id, model_name=request.model_name, model_version="1.0"
        )
        for output in outputs:
            field = {"BYTES": "bytes_contents", "BOOL": "bool_contents", "FP32": "fp32_contents"}[
                output["datatype"]
            ]
            data = (
                [json.dumps(d).encode() for d in output["data"]]
                if field == "bytes_contents"
                else output["data"]
            )
            reply.outputs.add(
                name=output["name"],
                datatype=output["datatype"],
                shape=output["shape"],
                contents={field: data},
            )
        return reply


class Management(management_grpc.ManagementAPIsServiceServicer):
    def __init__(self, fake: FakeTorchServe) -> None:
        self.fake = fake

    def _json(self, value):
        return management.ManagementResponse(msg=json.dumps(value, indent=2))

    def ListModels(self, request, context):
        return self._json(self.fake.page(request.limit, request.next_page_token))

    def DescribeModel(self, request, context):
        try:
            return self._json(
                self.fake.describe(request.model_name, request.model_version, request.customized)
            )
        except Refused as error:
            abort(context, error, grpc.StatusCode.NOT_FOUND)

    def _change(self, context, change, *arguments):
        try:
            return management.ManagementResponse(msg=change(*arguments))
        except Refused as error:
            abort(context, error, grpc.StatusCode.INTERNAL)

    def ScaleWorker(self, request, context):
        self.fake.received.append("ScaleWorker")
        assert not request.synchronous
        workers = (request.min_worker, request.max_worker)
        return self._change(context, self.fake.scale, request.model_name, request.model_version, workers)

    def RegisterModel(self, request, context):
        self.fake.received.append("RegisterModel")
        assert not request.synchronous
        if request.url == "twice.mar":
            # TorchServe does not catch this exception and sends no message.
            context.abort(grpc.StatusCode.UNKNOWN, "")
        return self._change(context, self.fake.register, request.url, request.model_name)

    def SetDefault(self, request, context):
        return self._change(context, self.fake.set_default, request.model_name, request.model_version)

    def UnregisterModel(self, request, context):
        self.fake.received.append("UnregisterModel")
        return self._change(context, self.fake.unregister, request.model_name, request.model_version)
