"""python convert.py MODEL FOLDER: write weights and labels in the formats of image_classifier."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

if __name__ == "__main__":
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    torch.save(load_file(model / "model.safetensors"), folder / "resnet-50.pth")
    labels = json.loads((model / "config.json").read_text())["id2label"]
    (folder / "index_to_name.json").write_text(json.dumps(labels))
