"""A model as a custom runtime of MLServer, which receives batches of requests in JSON."""

import json

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from peer_models import load_model


class Runtime(MLModel):
    async def load(self) -> bool:
        self.model = load_model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        requests = self.decode(payload.inputs[0], default_codec=StringCodec)
        inputs = [self.model.decode(json.loads(request)) for request in requests]
        answers = [json.dumps(output) for output in self.model.predict(inputs)]
        outputs = [StringCodec.encode_output("answer", answers)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
