"""Comparison of the classifier's answers with those of transformers, with real weights and starter weights."""

import json

import pytest

from tests.conftest import ROOT
from tests.real_models import labeled_photos
from tests.unit.handlers.classifying import STARTER, assert_equal_to_transformers, start_classifier
from tests.unit.handlers.sending import raw, send
from training.images import draw_image


@pytest.fixture(scope="module")
def starter(prepared_starter, tmp_path_factory):
    return start_classifier(prepared_starter, tmp_path_factory.mktemp("starter"))


@pytest.fixture(scope="module")
def mobilenet(calibrated_mobilenet, tmp_path_factory):
    folder = calibrated_mobilenet
    return (*start_classifier(folder, tmp_path_factory.mktemp("real")), folder)


@pytest.mark.full
@pytest.mark.filterwarnings("default")
def test_real_weights_agree_with_transformers_on_real_photos(mobilenet):
    handler, context, folder = mobilenet
    names = [
        "ts_kitten.jpg", "hub_samoyed.jpg", "sm_tiger.png", "sm_tiger.gif", "pil_pil_sample_cmyk.jpg",
        "pil_transparent.png", "coral_grace_hopper.bmp", "exif_Landscape_6.jpg", "pil_frozenpond.mpo",
    ]  # fmt: skip
    shared = ROOT.parent / "shared" / "data" / "photos"
    for name in names:
        data = (shared / name).read_bytes()
        (answer,), _ = send(handler, context, raw(data))
        # The decoder leaves out detail of large JPEGs that the resize would throw away; tests of vision bound it.
        tolerance = 0.03 if name in ("hub_samoyed.jpg", "exif_Landscape_6.jpg") else 1e-3
        assert_equal_to_transformers(answer, folder, data, tolerance)


def test_real_weights_label_real_photos_correctly(mobilenet, shared_data):
    handler, context, _ = mobilenet
    names = json.loads((shared_data / "imagenet_index_to_name.json").read_text())
    photos = labeled_photos(shared_data)
    answers, _ = send(handler, context, *[raw(path.read_bytes()) for path, _ in photos])
    right = sum(
        names[str(index)][1] in [label["label"] for label in answer[:3]]
        for answer, (_, index) in zip(answers, photos, strict=True)
    )
    assert right >= len(photos) - 1


def test_all_orientations_of_a_photo_get_the_same_label(mobilenet, shared_data):
    handler, context, _ = mobilenet
    photos = sorted((shared_data / "photos").glob("exif_Landscape_*.jpg"))
    answers, _ = send(handler, context, *[raw(path.read_bytes()) for path in photos])
    assert len({answer[0]["label"] for answer in answers}) == 1


@pytest.mark.full
def test_starter_weights_agree_with_transformers(starter):
    handler, context = starter
    for index in range(5):
        _, data = draw_image(99, index)
        (answer,), _ = send(handler, context, raw(data))
        assert_equal_to_transformers(answer, STARTER, data)
