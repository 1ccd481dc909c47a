"""python host.py LIBRARY PRECISION: generates batches when asked over HTTP, and says how long they took.

POST /run runs whole batches, from texts to texts, until the seconds are over; POST /predict answers one text.
"""

import itertools
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

MODEL, CONVERTED = os.environ["MODEL"], Path(os.environ["CONVERTED"])
CORES = len(os.sched_getaffinity(0))


class Transformers:
    """generate(), as it is."""

    def __init__(self, precision):
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(MODEL, dtype=getattr(torch, precision)).eval()
        self.mode = torch.inference_mode

    def run(self, texts, parameters):
        inputs = self.tokenizer(texts, return_tensors="pt", truncation=True, padding=True)
        with self.mode():
            rows = self.model.generate(**inputs, **parameters)
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)


class OpenVino(Transformers):
    """optimum-intel's model class, which has generate() too; converted once."""

    def __init__(self, precision):
        import contextlib

        from optimum.intel import OVModelForSeq2SeqLM
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        if not (CONVERTED / "done").exists():
            OVModelForSeq2SeqLM.from_pretrained(MODEL, export=True, compile=False).save_pretrained(CONVERTED)
            (CONVERTED / "done").touch()
        config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self.model = OVModelForSeq2SeqLM.from_pretrained(CONVERTED, ov_config=config)
        self.mode = contextlib.nullcontext


class CTranslate2:
    """Its own format and its own loop; converted once."""

    def __init__(self, precision):
        import ctranslate2
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        if not (CONVERTED / "model.bin").exists():
            converter = ctranslate2.converters.TransformersConverter(MODEL)
            converter.convert(str(CONVERTED), quantization=precision, force=True)
        self.translator = ctranslate2.Translator(
            str(CONVERTED), device="cpu", compute_type=precision, inter_threads=1, intra_threads=CORES
        )

    def run(self, texts, parameters):
        rows = self.tokenizer(texts, truncation=True)["input_ids"]
        found = self.translator.translate_batch(
            [self.tokenizer.convert_ids_to_tokens(row) for row in rows],
            beam_size=parameters["num_beams"],
            min_decoding_length=parameters["min_new_tokens"],
            max_decoding_length=parameters["max_new_tokens"],
        )
        ids = [self.tokenizer.convert_tokens_to_ids(each.hypotheses[0]) for each in found]
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


LIBRARIES = {"transformers": Transformers, "openvino": OpenVino, "ctranslate2": CTranslate2}


def measure(library, batch, seconds, asked):
    """Only for requests of one length: a batch has one."""
    requests = itertools.cycle(asked)
    found = {"completed": 0, "tokens": 0, "latencies": [], "per_token": []}
    begin = now = time.perf_counter()
    while now < begin + seconds:
        sent, some = now, list(itertools.islice(requests, batch))
        length = some[0]["parameters"]["max_new_tokens"]
        answers = library.run([each["text"] for each in some], some[0]["parameters"])
        now = time.perf_counter()
        short = [
            answer for answer in answers if len(answer.split()) < length - 2
        ]  # two may be special tokens
        if short or len(answers) != batch:
            raise RuntimeError(f"{len(short[0].split())} words instead of {length}")
        found["completed"] += batch
        found["tokens"] += batch * length
        found["latencies"] += [now - sent] * batch
        found["per_token"] += [(now - sent) / length] * batch
    return {**found, "seconds": now - begin}


class Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            if self.path == "/run":
                answer = measure(LIBRARY, **body)
            else:
                answer = {"summary_text": LIBRARY.run([body["text"]], body["parameters"])[0]}
            status = 200
        except Exception as error:
            answer, status = {"error": repr(error)}, 500
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing."""


if __name__ == "__main__":
    LIBRARY = LIBRARIES[sys.argv[1]](sys.argv[2])
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Asked).serve_forever()
