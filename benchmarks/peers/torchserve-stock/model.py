"""The network for TorchServe's image_classifier, which wants exactly one class here, and logits from it."""

from transformers import ResNetConfig, ResNetForImageClassification


class ResNet50(ResNetForImageClassification):
    def __init__(self):
        super().__init__(ResNetConfig(num_labels=1000))

    def forward(self, pixels):
        return super().forward(pixel_values=pixels).logits
