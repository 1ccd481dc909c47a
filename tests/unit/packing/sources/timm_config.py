"""Configurations of timm models."""

import json


def timm_config(**changes: object) -> str:
    return json.dumps(
        {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": {"input_size": [3, 64, 64]}}
        | changes
    )
