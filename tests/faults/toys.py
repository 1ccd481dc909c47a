"""Toy model archives without weights, whose handlers execute the order in their input, such as `sleep 1`."""

import json
import zipfile
from pathlib import Path

from handlers.core import activity, metrics, request_log

CONFIG = """
minWorkers: {workers}
maxWorkers: {workers}
batchSize: {batch}
maxBatchDelay: 1
responseTimeout: 20
startupTimeout: 20
jobQueueSize: {queue}
deviceType: cpu
"""

OBEDIENT = """
import os, time

class Toy:
    def initialize(self, context):
        self.asked = 0

    def handle(self, data, context):
        answers = []
        for fields in data:
            order = bytes(fields.get("body", b"")).decode()
            if order.startswith("sleep "):
                time.sleep(float(order.removeprefix("sleep ")))
            if order == "exit":
                os._exit(9)
            if order.startswith("exit once "):
                marker = order.removeprefix("exit once ")
                if not os.path.exists(marker):
                    open(marker, "w").close()
                    os._exit(9)
            if order == "raise":
                raise ValueError("as ordered")
            self.asked += 1
            answers.append(f"{os.getpid()} {self.asked}")
        return answers
"""

STREAMING = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response

class Toy:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        if "body" not in data[0]:
            send_intermediate_predict_response(["..."], context.request_ids, "more", 200, context)
            time.sleep(0.2)
        return [str(os.getpid())]
"""

TALKATIVE = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response

class Toy:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        order = bytes(data[0]["body"]).decode()
        if order == "stream":
            send_intermediate_predict_response(["first"], context.request_ids, "more", 200, context)
            time.sleep(1)
            return ["last"]
        return ["x" * int(order)]
"""

BROKEN_AT_LOAD = """
class Toy:
    def initialize(self, context):
        try:
            {}["config"]
        except KeyError as error:
            raise ValueError("these weights belong to another architecture") from error

    def handle(self, data, context):
        return [""] * len(data)
"""

KILLED_AT_LOAD = BROKEN_AT_LOAD.replace("        try:\n", "        import os; os._exit(9)\n        try:\n")


VERSION = "starter-1a2b3c4d"

REPORTING = """
import os, sys, time
from activity import ActivityWriter

class Toy:
    def initialize(self, context):
        self.activity = ActivityWriter.from_environment()
        self.activity.start_heartbeat()

    def handle(self, data, context):
        self.activity.begin_batch(len(data))
        orders = [bytes(fields.get("body", b"")).decode() for fields in data]
        longest = max(float(order.removeprefix("sleep ") or 0) for order in orders)
        end = time.monotonic() + longest
        while time.monotonic() < end:
            time.sleep(0.05)
            self.activity.advance()
        self.activity.end_batch()
        return [str(os.getpid())] * len(data)
"""
"""A handler that reports its activity, like this repository's handlers."""

LOADS_WHEN_ALLOWED = """
import os

class Toy:
    def initialize(self, context):
        if not os.path.exists({allowed!r}):
            raise ValueError("not allowed to load")

    def handle(self, data, context):
        return [str(os.getpid())] * len(data)
"""

LOGGING = """
import logging
import request_log

class Toy:
    def initialize(self, context):
        request_log.install()

    def handle(self, data, context):
        with request_log.log_context("request mine, REST"):
            try:
                {}["config"]
            except KeyError:
                logging.getLogger("toy").exception("unexpected error")
        print("as printed")
        return [""] * len(data)
"""
"""A handler that logs errors like this repository's handlers."""

COUNTING = """
import os
import metrics

class Toy:
    def initialize(self, context):
        model = context.manifest["model"]
        counted = metrics.Metrics(context.metrics, model["modelName"], model["modelVersion"])
        counted.add(metrics.WORKER_STARTS, 1)
        counted.flush()

    def handle(self, data, context):
        if bytes(data[0].get("body", b"")) == b"exit":
            os._exit(9)
        return [""] * len(data)
"""
"""A handler that counts its starts like this repository's handlers."""

_FILES = (activity.__file__, metrics.__file__, request_log.__file__)
MODULES = {Path(file).name: Path(file).read_text() for file in _FILES}
"""Modules that handlers can import."""


def toy(
    store: Path,
    name: str,
    handler: str = OBEDIENT,
    workers: int = 1,
    queue: int = 10,
    version: str = VERSION,
    *,
    batch: int = 1,
    more: str = "",
) -> str:
    """Write the archive `name`.mar, replacing an existing one, and return the name.

    `more` contains further lines of its model-config.yaml.
    """
    model = {
        "modelName": name,
        "modelVersion": version,
        "handler": "toy.py",
        "configFile": "model-config.yaml",
    }
    manifest = {
        "createdOn": "01/01/2020 00:00:00",
        "runtime": "python",
        "model": model,
        "archiverVersion": "0.12.0",
    }
    new = store / f"{name}.new"
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model-config.yaml", CONFIG.format(workers=workers, queue=queue, batch=batch) + more)
        archive.writestr("toy.py", handler)
        for file, content in MODULES.items():
            archive.writestr(file, content)
    new.replace(store / f"{name}.mar")
    return name
