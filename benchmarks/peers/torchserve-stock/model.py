"""The network for TorchServe's image_classifier, which requires a single class here that returns logits."""

from transformers import ResNetConfig, ResNetForImageClassification


class ResNet50(ResNetForImageClassification):
    def __init__(self):
        super().__init__(ResNetConfig(num_labels=1000))

    def forward(self, pixels):
        return super().forward(pixel_values=pixels).logits
