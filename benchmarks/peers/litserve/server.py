"""A model behind LitServe, as in its performance guide, with batches of up to eight."""

import os

import litserve as ls
from peer_models import load_model


class ModelAPI(ls.LitAPI):
    def setup(self, device):
        self.model = load_model(device=device)

    def decode_request(self, request):
        return self.model.decode(request)

    def batch(self, inputs):
        return inputs

    def predict(self, inputs):
        return self.model.predict(inputs)

    def unbatch(self, outputs):
        return outputs

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = ModelAPI(max_batch_size=8, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="auto", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)
