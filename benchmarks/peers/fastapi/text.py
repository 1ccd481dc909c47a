"""Summaries behind FastAPI; the model is loaded once, at startup, with the precision DTYPE."""

import os

from fastapi import FastAPI
from peer_models import load_model
from pydantic import BaseModel

app = FastAPI()
summarizer = load_model(precision=os.environ["DTYPE"])


class Article(BaseModel):
    text: str
    parameters: dict = {}


@app.post("/predict")
async def predict(article: Article):
    return summarizer.predict([(article.text, article.parameters)])[0]
