"""ResNet-50 behind Flask, as in PyTorch's tutorial; the model is loaded once, at startup."""

from flask import Flask, jsonify, request
from peer_models import load_model, open_image

app = Flask(__name__)
classifier = load_model()


@app.route("/predict", methods=["POST"])
def predict():
    return jsonify(classifier.predict([open_image(request.files["file"].read())])[0])
