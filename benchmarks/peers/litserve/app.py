"""ResNet-50 behind LitServe, after its guide to speed: batches of up to eight."""

import base64
import io
import os

import litserve as ls
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


class ImageClassifierAPI(ls.LitAPI):
    def setup(self, device):
        self.processor = AutoImageProcessor.from_pretrained(os.environ["MODEL"])
        self.model = AutoModelForImageClassification.from_pretrained(os.environ["MODEL"]).eval().to(device)

    def decode_request(self, request):
        image = base64.b64decode(request["image_data"])
        return Image.open(io.BytesIO(image)).convert("RGB")

    def batch(self, images):
        return self.processor(images=images, return_tensors="pt").to(self.model.device)

    def predict(self, inputs):
        with torch.inference_mode():
            return self.model(**inputs).logits.softmax(-1).topk(5)

    def unbatch(self, top):
        return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))

    def encode_response(self, best):
        return [{"label": self.model.config.id2label[i], "score": s} for i, s in zip(*best, strict=True)]


if __name__ == "__main__":
    api = ImageClassifierAPI(max_batch_size=8, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="auto", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)
