"""python pack.py MODEL FOLDER: makes FOLDER/model_store/resnet-50.mar as torch-model-archiver's manual shows."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

model, folder = Path(sys.argv[1]), Path(sys.argv[2])
here = Path(__file__).parent
torch.save(load_file(model / "model.safetensors"), folder / "resnet-50.pth")
labels = json.loads((model / "config.json").read_text())["id2label"]
(folder / "index_to_name.json").write_text(json.dumps(labels))
options = {
    "model-name": "resnet-50",
    "version": "1.0",
    "model-file": here / "model.py",
    "serialized-file": folder / "resnet-50.pth",
    "handler": "image_classifier",
    "extra-files": folder / "index_to_name.json",
    "config-file": here / "model-config.yaml",
    "export-path": folder / "model_store",
}
arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
packager = [sys.executable, "-m", "model_archiver.model_packaging", "--force"]
sys.exit(subprocess.run([*packager, *arguments]).returncode)
