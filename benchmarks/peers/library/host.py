"""python host.py LIBRARY PRECISION: serve a library in a separate process that runs batches on request.

POST /run runs batches of texts for some seconds and returns the measurement; POST /predict summarizes one text.
"""

import itertools
import os
import sys
import time
from pathlib import Path

import uvicorn
from peer_models import Summarizer
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoTokenizer

MODEL = Path(os.environ["MODEL"])
CONVERTED = MODEL.with_name("-".join([MODEL.name, *sys.argv[1:], (MODEL / "stamp").read_text()[:8]]))
MAX_SPECIAL_TOKENS = 2
"""Maximum number of new tokens of an answer that are not words."""


class Transformers:
    def __init__(self, precision):
        self.summarizer = Summarizer(MODEL, "cpu", precision)

    def run(self, texts, parameters):
        answers = self.summarizer.predict([(text, parameters) for text in texts])
        return [answer["summary_text"] for answer in answers]


class OpenVino(Transformers):
    """Run OVModelForSeq2SeqLM from optimum-intel; the converted model is cached in CONVERTED."""

    def __init__(self, precision):
        from optimum.intel import OVModelForSeq2SeqLM

        if not (CONVERTED / "done").exists():
            exported = OVModelForSeq2SeqLM.from_pretrained(str(MODEL), export=True, compile=False)
            exported.save_pretrained(CONVERTED)
            (CONVERTED / "done").touch()
        config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        model = OVModelForSeq2SeqLM.from_pretrained(CONVERTED, ov_config=config)
        self.summarizer = Summarizer(MODEL, "cpu", model=model)


class CTranslate2:
    """Run a CTranslate2 Translator; the converted model is cached in CONVERTED."""

    def __init__(self, precision):
        import ctranslate2

        if not (CONVERTED / "model.bin").exists():
            converter = ctranslate2.converters.TransformersConverter(str(MODEL))
            converter.convert(str(CONVERTED), quantization=precision, force=True)
        threads = {"inter_threads": 1, "intra_threads": len(os.sched_getaffinity(0))}
        self.translator = ctranslate2.Translator(str(CONVERTED), "cpu", compute_type=precision, **threads)

    def run(self, texts, parameters):
        rows = TOKENIZER(texts, truncation=True)["input_ids"]
        results = self.translator.translate_batch(
            [TOKENIZER.convert_ids_to_tokens(row) for row in rows],
            beam_size=parameters["num_beams"],
            min_decoding_length=parameters["min_new_tokens"],
            max_decoding_length=parameters["max_new_tokens"],
        )
        ids = [TOKENIZER.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
        return TOKENIZER.batch_decode(ids, skip_special_tokens=True)


async def run(request):
    """Run batches of requests. All requests have the same output length."""
    options = await request.json()
    batch_size, requests = options["batch"], itertools.cycle(options["requests"])
    totals = {"completed": 0, "tokens": 0, "latencies": [], "per_token": []}
    begin = now = time.perf_counter()
    while now < begin + options["seconds"]:
        start, batch = now, list(itertools.islice(requests, batch_size))
        parameters = batch[0]["parameters"]
        answers = LIBRARY.run([item["text"] for item in batch], parameters)
        now, length = time.perf_counter(), parameters["max_new_tokens"]
        words = [len(answer.split()) for answer in answers]
        if len(words) != batch_size or min(words) < length - MAX_SPECIAL_TOKENS:
            raise RuntimeError(f"expected summaries of {length} words, got {words}")
        totals["completed"] += batch_size
        totals["tokens"] += batch_size * length
        totals["latencies"] += [now - start] * batch_size
        totals["per_token"] += [(now - start) / length] * batch_size
    return JSONResponse({**totals, "seconds": now - begin})


async def predict(request):
    body = await request.json()
    return JSONResponse({"summary_text": LIBRARY.run([body["text"]], body["parameters"])[0]})


if __name__ == "__main__":
    libraries = {"transformers": Transformers, "openvino": OpenVino, "ctranslate2": CTranslate2}
    TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
    LIBRARY = libraries[sys.argv[1]](sys.argv[2])
    routes = [Route("/run", run, methods=["POST"]), Route("/predict", predict, methods=["POST"])]
    uvicorn.run(Starlette(routes=routes), port=int(os.environ["PORT"]), log_level="warning")
