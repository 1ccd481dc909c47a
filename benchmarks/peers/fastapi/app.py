"""ResNet-50 behind FastAPI; the model is loaded once, at the start."""

import io
import os

import torch
from fastapi import FastAPI, UploadFile
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

app = FastAPI()
processor = AutoImageProcessor.from_pretrained(os.environ["MODEL"])
device = "cuda" if torch.cuda.is_available() else "cpu"
model = AutoModelForImageClassification.from_pretrained(os.environ["MODEL"]).to(device)
model.eval()


@app.post("/predict")
async def predict(file: UploadFile):
    image = Image.open(io.BytesIO(await file.read())).convert("RGB")
    inputs = processor(images=image, return_tensors="pt").to(device)
    with torch.no_grad():
        scores = model(**inputs).logits[0].softmax(-1)
    top = scores.topk(5)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [{"label": model.config.id2label[index], "score": score} for index, score in pairs]
