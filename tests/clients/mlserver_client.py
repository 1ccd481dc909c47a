"""MLServer's codecs as in its documentation. Arguments: the URL of a server, an image and a text."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import requests
from mlserver.codecs import Base64Codec, NumpyCodec, NumpyRequestCodec, StringCodec, StringRequestCodec
from mlserver.types import InferenceRequest, InferenceResponse

warnings.simplefilter("ignore")  # pydantic's, for methods in MLServer's documentation
base, image_path, text_path = sys.argv[1:]
array = np.load(image_path.replace(".jpg", ".npy"))
image, text = Path(image_path).read_bytes(), Path(text_path).read_text()


def infer(model, **body):
    response = requests.post(f"{base}/v2/models/{model}/infer", timeout=60, **body)
    answer = response.json()
    if response.status_code != 200:
        return answer
    decoded = InferenceResponse.model_validate(answer)
    outputs = {output.name: output for output in decoded.outputs}
    name = "label" if "label" in outputs else "summary_text"
    return list(map(str, StringCodec.decode_output(outputs[name])))


pixels = InferenceRequest(inputs=[NumpyCodec.encode_input(name="payload", payload=array)])
files = InferenceRequest(inputs=[Base64Codec.encode_input("file", [image], use_bytes=False)])
texts = StringRequestCodec.encode_request([text, text], use_bytes=False)
wrong = InferenceRequest(
    inputs=[*pixels.inputs, NumpyCodec.encode_input(name="another", payload=np.zeros((2, 2, 3), np.uint8))]
)
print(
    json.dumps(
        {
            "lab": infer("resnet-50", json=pixels.dict()),
            "pixels": infer("resnet-50", json=NumpyRequestCodec.encode_request(array).dict()),
            "floats": infer("resnet-50", data=NumpyRequestCodec.encode_request(array.astype(float)).json()),
            "batch": infer(
                "resnet-50", json=NumpyRequestCodec.encode_request(np.stack([array, array])).dict()
            ),
            "files": infer("resnet-50", json=files.dict()),
            "texts": infer("t5-small", json=texts.dict()),
            "bytes": infer("t5-small", data=StringRequestCodec.encode_request([text]).json()),
            "strings": infer("t5-small", data=NumpyRequestCodec.encode_request(np.array([text])).json()),
            "wrong": infer("resnet-50", json=wrong.dict()),
        }
    )
)
