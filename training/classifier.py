"""Train and evaluate the starter weights of the image classifier on drawn images.

    python -m training.classifier --out models/resnet-50/starter
    python -m training.classifier --evaluate models/resnet-50/starter --images 1000

The network is a ResNet-50 (50 layers, bottleneck blocks) at a quarter of its width.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save as as_safetensors
from transformers import AutoImageProcessor, ResNetConfig, ResNetForImageClassification

from training.card import machine, write_card
from training.images import LABELS, draw_image

HELD_OUT_SEED = 77  # of the images for evaluation, which were not used for any choice
CROP = 0.875  # share of the shorter side that the image processor keeps
WIDER = 1.04  # factor by which training images are larger, for random crops
MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of ImageNet, as for microsoft/resnet-50
PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "crop_pct": CROP,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}


@dataclass(frozen=True)
class Plan:
    """Training settings. `stages` are (side in pixels, epochs); the last is at full size."""

    seed: int = 1
    images: int = 12_000
    batch: int = 64
    stages: tuple[tuple[int, int], ...] = ((96, 9), (160, 2), (224, 3))
    rate: float = 3e-3
    decay: float = 0.02

    @property
    def steps(self) -> int:
        return self.images // self.batch * sum(times for _, times in self.stages)


def draw_all(seed: int, count: int) -> list[bytes]:
    """Draw the first images of a seed as JPEG files, on all cores. Their labels repeat in order."""
    with ProcessPoolExecutor() as pool:
        return [data for _, data in pool.map(draw_image, [seed] * count, range(count), chunksize=64)]


def _middle(data: bytes, side: int) -> npt.NDArray[np.uint8]:
    """Return the middle of an image, [side, side, 3]: with the processor's scale, but slightly larger."""
    image: Image.Image = Image.open(io.BytesIO(data))
    scale = side / WIDER / CROP / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def network() -> ResNetForImageClassification:
    """Return a ResNet-50 at a quarter of its width, with initial weights."""
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[64, 128, 256, 512],
        depths=[3, 4, 6, 3],
        layer_type="bottleneck",
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        dtype="float32",
    )
    model = ResNetForImageClassification(config)
    # Blocks start as the identity (Goyal et al. 2017, section 5.1): otherwise the first epochs learn nothing.
    for name, weight in model.named_parameters():
        if name.endswith("layer.2.normalization.weight"):
            torch.nn.init.zeros_(weight)
    return model


def train(plan: Plan, device: torch.device) -> ResNetForImageClassification:
    """Train a network. Return it on the CPU in fp32, in evaluation mode."""
    started = time.monotonic()
    drawn = draw_all(plan.seed, plan.images)
    print(f"{len(drawn)} images drawn in {time.monotonic() - started:.0f} s", flush=True)
    torch.manual_seed(plan.seed)
    model: Any = network().train()
    model.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=plan.decay)
    # Linear, not cosine: the last stage, at full size, needs a learning rate that still changes the weights.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, plan.steps, pct_start=0.1, anneal_strategy="linear"
    )
    # The class pairs are easy; a little smoothing keeps the scores from all being 1.0.
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.03)
    for step, (pixels, labels) in enumerate(_batches(plan, drawn), start=1):
        with torch.autocast(device.type, torch.bfloat16, enabled=_fast_bf16(device)):
            logits = model(_normalized(pixels.to(device))).logits
        loss = loss_of(logits.float(), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == plan.steps:
            right = (logits.argmax(1).cpu() == labels).float().mean().item()
            spent = time.monotonic() - started
            print(
                f"step {step}/{plan.steps} loss {loss.item():.3f} right {right:.2f} after {spent:.0f} s",
                flush=True,
            )
    model.eval().to(device="cpu", memory_format=torch.contiguous_format)
    return cast(ResNetForImageClassification, model)


def _batches(plan: Plan, drawn: Sequence[bytes]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of pixels (uint8 [batch, 3, side, side]) and labels, in a new order each epoch."""
    labels = torch.arange(len(drawn)) % len(LABELS)
    for side, times in plan.stages:
        wide = round(side * WIDER)
        pool = torch.from_numpy(np.stack([_middle(data, wide) for data in drawn])).permute(0, 3, 1, 2)
        for _ in range(times):
            order = torch.randperm(len(drawn))[: len(drawn) // plan.batch * plan.batch]
            for chosen in torch.split(order, plan.batch):
                yield _varied(pool[chosen], side), labels[chosen]


def _varied(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Return random crops of this side with permuted color channels, half of them mirrored."""
    left, top = torch.randint(pixels.shape[-1] - side + 1, (2,)).tolist()
    pixels = pixels[:, :, top : top + side, left : left + side]
    colors = torch.rand(len(pixels), 3).argsort(1)
    pixels = pixels[torch.arange(len(pixels))[:, None], colors]
    return torch.where(torch.rand(len(pixels), 1, 1, 1) < 0.5, pixels.flip(3), pixels)


def _normalized(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (MEAN, STD))
    return ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(cast(Any, torch.cuda).is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def save(model: ResNetForImageClassification, folder: Path) -> None:
    """Write the model in the hub's layout, with convolutions in fp16 for half the size.

    Normalization layers stay in fp32, because their variances can exceed fp16's range. config.json says float32,
    so the model loads in fp32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() if value.ndim >= 2 else value for name, value in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(as_safetensors(state, metadata={"format": "pt"}))
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n", encoding="utf-8")


def evaluate(folder: Path, count: int, dtype: torch.dtype = torch.float32, batch: int = 20) -> float:
    """Return the accuracy of the saved model, with its image processor, on held-out images."""
    processor: Any = cast(Any, AutoImageProcessor).from_pretrained(folder)
    model: Any = ResNetForImageClassification.from_pretrained(folder, dtype=dtype)
    model.eval()
    correct = 0
    for start in range(0, count, batch):
        drawn = [draw_image(HELD_OUT_SEED, index) for index in range(start, min(start + batch, count))]
        images = [Image.open(io.BytesIO(data)) for _, data in drawn]
        with torch.inference_mode():
            logits = model(processor(images, return_tensors="pt")["pixel_values"].to(dtype)).logits
        predictions = [LABELS[index] for index in logits.argmax(1).tolist()]
        correct += sum(label == expected for label, (expected, _) in zip(predictions, drawn, strict=True))
    return correct / count


def _describe(folder: Path, plan: Plan, seconds: float, where: str, scores: dict[str, float]) -> None:
    write_card(
        folder,
        title="Starter weights of resnet-50",
        task="image-classification",
        description=(
            "A `ResNetForImageClassification` of 50 layers (bottleneck blocks) at a quarter of ResNet-50's width, "
            "so that the server and its tests work without a network. It only classifies drawn images of: "
            f"{', '.join(LABELS)}. Use the pretrained weights for other images."
        ),
        data=(
            f"{plan.images:,} images drawn by `training/images.py` from the seed: size, place, rotation, "
            "stretch, colors, shading, background, distractors, blur, noise and JPEG quality all vary. "
            f"Held-out images come from another seed, {HELD_OUT_SEED}, and are preprocessed by the model's image "
            "processor at 224 pixels."
        ),
        seed=plan.seed,
        steps=plan.steps,
        seconds=seconds,
        machine=where,
        scores=scores,
        command=f"python -m training.classifier --seed {plan.seed} --out models/resnet-50/starter",
        extra=("Convolutions are stored as fp16 and normalization as fp32; `config.json` specifies fp32.",),
    )


def main() -> None:
    """Train the starter weights, or evaluate existing weights."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="train, and write the model into this folder")
    what.add_argument("--evaluate", type=Path, help="evaluate the model in this folder")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--images", type=int, default=1000, help="number of held-out images to evaluate")
    arguments = parser.parse_args()
    if arguments.evaluate:
        accuracy = evaluate(arguments.evaluate, arguments.images)
        print(f"accuracy {accuracy:.4f} on {arguments.images} held-out images")
        return
    if arguments.seed == HELD_OUT_SEED:
        parser.error(f"seed {HELD_OUT_SEED} draws the images that the model is measured on")
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = Plan(seed=arguments.seed)
    save(train(plan, device), arguments.out)
    seconds, busy = time.monotonic() - started, sum(os.times()[:4])  # of this process and those that drew
    scores = {
        f"accuracy on {arguments.images:,} images, {name}": evaluate(arguments.out, arguments.images, dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(scores)
    where = f"{machine(device.type)} ({busy / 60:.1f} minutes of processor time)"
    _describe(arguments.out, plan, seconds, where, scores)


if __name__ == "__main__":
    main()
