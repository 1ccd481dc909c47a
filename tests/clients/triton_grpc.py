"""tritonclient over gRPC, with its KServe stubs. Arguments: nginx's gRPC address, an image and a text."""

import json
import sys
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

address, image_path, text_path = sys.argv[1:]
image, text = Path(image_path).read_bytes(), Path(text_path).read_text()
pixels = np.load(image_path.replace(".jpg", ".npy"))
client = triton.InferenceServerClient(address)


def tensor(name, array, datatype):
    result = triton.InferInput(name, list(array.shape), datatype)
    result.set_data_from_numpy(array)
    return result


def words(array):
    return [item.decode() for item in array.ravel()]


def refused(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return "an answer"


file = tensor("image", np.array([image], dtype=np.object_), "BYTES")
prose = tensor("text", np.array([text.encode()] * 2, dtype=np.object_), "BYTES")
plain = client.infer("resnet-50", [file], request_id="seven")
selected = client.infer(
    "resnet-50",
    [tensor("INPUT__0", pixels, "UINT8")],
    outputs=[triton.InferRequestedOutput("score"), triton.InferRequestedOutput("label")],
    parameters={"top_k": 2},
    timeout=60_000_000,
    priority=1,
    client_timeout=60,
    compression_algorithm="gzip",
)
half = client.infer("resnet-50", [tensor("image", pixels.astype(np.float16), "FP16")])
summaries = client.infer("t5-small", [prose])
penalty = client.infer(
    "t5-small", [prose], parameters={"num_beams": 2, "length_penalty": 0.5, "max_new_tokens": 5}
)
metadata = client.get_model_metadata("t5-small")

with grpc.insecure_channel(address) as channel:
    request = service_pb2.ModelInferRequest(model_name="t5-small", id="8")
    typed = request.inputs.add(name="text", datatype="BYTES", shape=[1])
    typed.contents.bytes_contents.append(text.encode())
    answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)

print(
    json.dumps(
        {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": [client.is_model_ready(name) for name in ("t5-small", "nobody")],
            "server": client.get_server_metadata().name,
            "metadata": [[output.name, output.datatype, list(output.shape)] for output in metadata.outputs],
            "version ready": client.is_model_ready("t5-small", metadata.versions[0]),
            "labels": words(plain.as_numpy("label")),
            "id": plain.get_response().id,
            "selected": [output.name for output in selected.get_response().outputs],
            "scores": selected.as_numpy("score").shape,
            "pixels": words(selected.as_numpy("label")),
            "half": words(half.as_numpy("label")),
            "summaries": words(summaries.as_numpy("summary_text")),
            "truncated": summaries.as_numpy("truncated").tolist(),
            "short": words(penalty.as_numpy("summary_text")),
            "typed": [item.decode() for item in answer.outputs[0].contents.bytes_contents],
            "typed id": answer.id,
            "parameter": refused(lambda: client.infer("resnet-50", [file], parameters={"top_k": 0})),
            "model": refused(lambda: client.infer("nobody", [file])),
            "output": refused(
                lambda: client.infer("resnet-50", [file], outputs=[triton.InferRequestedOutput("logits")])
            ),
            "method": refused(lambda: client.get_model_config("resnet-50")),
            "late": refused(lambda: client.infer("t5-small", [prose], client_timeout=0.001)),
        }
    )
)
