"""A minimal handler for tests, which converts a text to upper case."""

from handlers.core.device import Device
from handlers.core.errors import InvalidText
from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.tensor import Tensor


class Shout(Handler[str, str]):
    """A handler that converts texts to upper case. A text with 'poison' makes its whole batch fail."""

    payload_fields = ("text",)

    def load(self, folder, config, device: Device) -> None:
        self.batches_run: list[list[str]] = []

    def parameters(self):
        return (Parameter("times", int, low=1, high=3),)

    def decode(self, payload, parameters):
        try:
            text = payload if isinstance(payload, str) else payload.decode()
        except UnicodeDecodeError:
            raise InvalidText("not UTF-8") from None
        if not text.strip():
            raise InvalidText("the text is empty")
        return text * parameters.get("times", 1)

    def predict(self, items):
        self.batches_run.append(list(items))
        for item in items:
            if "poison" in item:
                raise RuntimeError("secret reason")
            if "memory" in item:
                raise MemoryError
        return [InvalidText("no vowels") if item == "xyz" else item.upper() for item in items]

    def encode(self, answer):
        return {"shout": answer}

    def outputs(self, answers):
        return [Tensor("shout", "BYTES", (len(answers),), list(answers))]

    def warm_up(self):
        self.predict(["warm"])

    def generated_tokens(self, answer):
        return len(answer)
