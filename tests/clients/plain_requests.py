"""`requests` with `data=json.dumps(...)`, which sets no Content-Type. Arguments: a URL, an image and a text."""

import base64
import json
import sys
from pathlib import Path

import requests

base, image_path, text_path = sys.argv[1:]
image, text = Path(image_path).read_bytes(), Path(text_path).read_text()


def post(path, **body):
    response = requests.post(base + path, timeout=60, **body)
    return {"status": response.status_code, "body": response.json()}


encoded = base64.b64encode(image).decode()
print(
    json.dumps(
        {
            "summary": post("/predictions/t5-small", data=json.dumps({"inputs": text})),
            "short": post(
                "/predictions/t5-small",
                data=json.dumps({"inputs": text, "parameters": {"max_new_tokens": 3}}),
            ),
            "refused": post(
                "/predictions/t5-small", data=json.dumps({"inputs": text, "parameters": {"num_beams": 100}})
            ),
            "text": post("/predictions/t5-small", data=text.encode()),
            "labels": post(
                "/predictions/resnet-50", data=json.dumps({"inputs": encoded, "parameters": {"top_k": 2}})
            ),
            "image": post("/predictions/resnet-50", data=image),
            "form": post("/predictions/resnet-50", files={"image": image}, data={"top_k": 2}),
            "v1": post("/v1/models/t5-small:predict", data=json.dumps({"instances": [text]})),
        }
    )
)
