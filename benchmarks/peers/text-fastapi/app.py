"""Summaries behind FastAPI; the model is loaded once, at the start, in the precision DTYPE."""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

app = FastAPI()
tokenizer = AutoTokenizer.from_pretrained(os.environ["MODEL"])
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = getattr(torch, os.environ["DTYPE"])
model = AutoModelForSeq2SeqLM.from_pretrained(os.environ["MODEL"], dtype=dtype).to(device)
model.eval()


class Article(BaseModel):
    text: str
    parameters: dict = {}


@app.post("/predict")
async def predict(article: Article):
    inputs = tokenizer(article.text, return_tensors="pt", truncation=True).to(device)
    with torch.no_grad():
        summary = model.generate(**inputs, **article.parameters)[0]
    return {"summary_text": tokenizer.decode(summary, skip_special_tokens=True)}
