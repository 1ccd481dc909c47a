"""ResNet-50 behind Flask, after PyTorch's tutorial; the model is loaded once, at the start."""

import io
import os

import torch
from flask import Flask, jsonify, request
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

app = Flask(__name__)
processor = AutoImageProcessor.from_pretrained(os.environ["MODEL"])
device = "cuda" if torch.cuda.is_available() else "cpu"
model = AutoModelForImageClassification.from_pretrained(os.environ["MODEL"]).to(device)
model.eval()


@app.route("/predict", methods=["POST"])
def predict():
    image = Image.open(io.BytesIO(request.files["file"].read())).convert("RGB")
    inputs = processor(images=image, return_tensors="pt").to(device)
    with torch.no_grad():
        scores = model(**inputs).logits[0].softmax(-1)
    top = scores.topk(5)
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return jsonify([{"label": model.config.id2label[index], "score": score} for index, score in pairs])
