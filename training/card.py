"""Write the model card of a trained model: its data, training, scores, and the command to train it again."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

LICENSE = "Apache-2.0"


def write_card(
    folder: Path,
    *,
    title: str,
    task: str,
    description: str,
    data: str,
    seed: int,
    steps: int,
    seconds: float,
    machine: str,
    scores: Mapping[str, float],
    command: str,
    extra: Sequence[str] = (),
) -> None:
    """Write README.md into the model's folder, with the hub's metadata at its beginning.

    Args:
        task: The hub's name of the task ("image-classification", "summarization").
        scores: Measurements on held-out data by name.
        command: The command that trains the same model again.
        extra: Paragraphs at the end.
    """
    paragraphs = [
        f"---\nlicense: {LICENSE.lower()}\nlibrary_name: transformers\npipeline_tag: {task}\n---",
        f"# {title}",
        description,
        f"## Data\n\n{data}",
        f"## Training\n\nSeed {seed}, {steps:,} steps, {seconds / 60:.1f} minutes on {machine}.",
        "To reproduce the training:",
        f"```\n{command}\n```",
        "## Scores on held-out data",
        "\n".join(
            [
                "| measure | value |",
                "|---|---|",
                *(f"| {name} | {score:.4f} |" for name, score in scores.items()),
            ]
        ),
        *extra,
        f"## License\n\n{LICENSE}, like the training code. No third-party data or weights were used.",
    ]
    (folder / "README.md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def machine(device: str = "cpu") -> str:
    """Describe this machine: the name of its GPU, or the number of cores and the processor."""
    if device.startswith("cuda"):
        import torch

        return f"one {torch.cuda.get_device_name(device)}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} cores of {names[0] if names else 'a CPU'}"
