"""ResNet-50 as a custom runtime of MLServer, which hands it batches."""

import io
import os

import torch
from mlserver import MLModel
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


class ResNet(MLModel):
    async def load(self) -> bool:
        self.processor = AutoImageProcessor.from_pretrained(os.environ["MODEL"])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForImageClassification.from_pretrained(os.environ["MODEL"]).to(self.device)
        self.model.eval()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = self.decode(payload.inputs[0], default_codec=Base64Codec)
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
        inputs = self.processor(images=images, return_tensors="pt").to(self.device)
        with torch.no_grad():
            scores = self.model(**inputs).logits.softmax(-1)
        top = scores.topk(5)
        labels = [self.model.config.id2label[index] for row in top.indices.tolist() for index in row]
        values = [score for row in top.values.tolist() for score in row]
        shape = [len(images), 5]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="label", shape=shape, datatype="BYTES", data=labels),
                ResponseOutput(name="score", shape=shape, datatype="FP32", data=values),
            ],
        )
