"""ResNet-50 behind FastAPI; the model is loaded once, at startup."""

from fastapi import FastAPI, UploadFile
from peer_models import load_model, open_image

app = FastAPI()
classifier = load_model()


@app.post("/predict")
async def predict(file: UploadFile):
    return classifier.predict([open_image(await file.read())])[0]
