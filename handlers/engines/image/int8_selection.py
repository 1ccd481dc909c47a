"""The choice between int8 and another precision of a model: agreement first, then speed, both on this machine."""

import logging
from collections.abc import Callable
from pathlib import Path

from handlers.core.device import FAST_INT8, has_any
from handlers.engines.base import summarize
from handlers.engines.image.classifier_network import blank_batch
from handlers.engines.image.int8_agreement import (
    MIN_AGREEMENT,
    SMALL_BATCH,
    CheckImages,
    has_int8,
    read_check_images,
    read_int8_facts,
)
from handlers.engines.image.openvino_classifier import OpenVinoClassifier
from handlers.engines.image.speed_comparison import measure_speedup
from handlers.engines.image.types import InputSpec

MIN_SPEEDUP = 1.05
"""The smallest mean speedup of int8 for which `precision: auto` accepts its small loss of accuracy."""

logger = logging.getLogger(__name__)


def load_int8(
    folder: Path,
    spec: InputSpec,
    is_configured: bool,
    load: Callable[[OpenVinoClassifier], OpenVinoClassifier | None],
    warn: Callable[[str], None],
) -> OpenVinoClassifier | None:
    """Return the loaded int8 network if it predicts the labels of fp32 on this machine.

    Archives of earlier versions contain no images for this check, and a network that is only correct on CPUs whose
    instructions multiply int8 exactly. Any error is a warning, because another precision follows.

    Args:
        folder: The model, with the files that packing prepared.
        spec: The format of the batches.
        is_configured: Whether the precision is "int8", not "auto". A low agreement at packing is then accepted, and
            so are a network that cannot be verified and a different label of one image.
        load: Loads an engine; returns None after it has warned.
        warn: Logs a warning and adds it to the reason of the selection.
    """
    if not has_int8(folder):
        if is_configured:
            warn("the archive has no int8 network; pack it with --calibrate")
        return None
    try:
        facts = read_int8_facts(folder)
        agreement, images = float(facts["agreement"]), int(facts["images"])
        check = read_check_images(folder)
    except Exception as error:
        warn(f"cannot verify int8: {summarize(error)}")
        return None
    if not _is_allowed(agreement, check, is_configured, warn):
        return None
    engine = load(OpenVinoClassifier(spec, int8=True))
    if engine is None:
        return None
    engine.int8_facts = {"agreement_at_packing": agreement, "images_at_packing": images}
    if check is None or not len(check.labels):
        return engine
    if not _is_correct(engine, check, is_configured, warn):
        engine.unload()
        return None
    return engine


def _is_allowed(
    agreement: float, check: CheckImages | None, is_configured: bool, warn: Callable[[str], None]
) -> bool:
    """Return whether an archive's int8 network may be loaded here; warn if the operator should know why not."""
    if agreement < MIN_AGREEMENT and not is_configured:
        warn(
            f"int8 predicts the label of fp32 for {agreement:.1%} of the images; "
            f"at least {MIN_AGREEMENT:.0%} are required"
        )
        return False
    if check is None:
        is_exact = has_any(FAST_INT8)
        if is_configured and not is_exact:
            warn("the int8 network of this archive requires VNNI or AMX; pack it again with --calibrate")
        return is_exact
    if not len(check.labels):
        warn("int8 cannot be verified: no calibration image was suitable; pack again with more images")
        return is_configured
    return True


def _is_correct(
    engine: OpenVinoClassifier, check: CheckImages, is_configured: bool, warn: Callable[[str], None]
) -> bool:
    """Return whether the network labels the stored images correctly here, and add the agreement to its facts."""
    try:
        differences = check.count_differences(engine)
    except Exception as error:
        warn(f"cannot verify int8: {summarize(error)}")
        return False
    count = len(check.labels)
    allowed = 1 if is_configured and count >= SMALL_BATCH else 0
    if differences > allowed:
        warn(
            f"int8 predicts another label than fp32 for {differences} of the {count} stored images on this CPU; "
            f"at most {allowed} may differ"
        )
        return False
    engine.int8_facts = (engine.int8_facts or {}) | {
        "agreement_here": 1 - differences / count,
        "images_here": count,
    }
    return True


def compare_speed(
    int8: OpenVinoClassifier,
    other: OpenVinoClassifier,
    spec: InputSpec,
    max_batch: int,
    warn: Callable[[str], None],
) -> bool:
    """Return whether int8 is clearly faster than another precision. Add the measured speedups to the facts of int8.

    After an error, which is a warning, the answer is no.
    """
    sizes = sorted({1, min(SMALL_BATCH, max_batch)})
    try:
        speedups = measure_speedup(int8, other, [blank_batch(spec, size) for size in sizes])
    except Exception as error:
        warn(f"cannot compare int8 with {other.describe()['precision']}: {summarize(error)}")
        return False
    measured = {f"batch_{size}": round(value, 2) for size, value in zip(sizes, speedups, strict=False)}
    facts = {"speedup": measured, "compared_with": other.describe()["precision"]}
    int8.int8_facts = (int8.int8_facts or {}) | facts
    logger.info("int8: %s", int8.int8_facts)
    return sum(speedups) / len(speedups) >= MIN_SPEEDUP
