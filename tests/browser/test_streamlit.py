"""The Streamlit page shows the results of the API on a phone, on a desktop, and in dark mode."""

import re

import pytest

from tests.browser.chromium import PRESENTATIONS, SIZES
from torchserve_models.client import ClientError
from torchserve_models.client.error_messages import explain
from torchserve_models.demo import examples
from torchserve_models.sample_inputs import IMAGES
from training.images import draw_image

every_presentation = pytest.mark.parametrize("presentation", PRESENTATIONS)
LABEL = "arrow"
IMAGE = IMAGES[LABEL].read_bytes()
MODEL = "bart-large-cnn"


@pytest.fixture
def page(browser, page_url, presentation):
    browser.open(page_url("streamlit"), presentation)
    browser.one(".bars li")
    return browser


def labels(page):
    return [(row.text.split("\n")) for row in page.all(".bars li")]


@every_presentation
def test_labels_of_an_example_match_the_api(page, api, presentation):
    expected_labels = [[label.label, f"{label.score:.1%}"] for label in api.classify("resnet-50", IMAGE)]
    page.until(lambda: labels(page) == expected_labels, f"the labels {expected_labels}")
    assert re.fullmatch(r"Answered in \d+\.\d\d s", page.one(".response-time").text)
    page.check()
    page.save(f"streamlit-{presentation}")


@pytest.mark.parametrize("presentation", ["desktop"])
def test_uploaded_image_is_shown_beside_its_labels(page, api, presentation, tmp_path):
    content = draw_image(91, 6)[1]
    file = tmp_path / "mine.jpg"
    file.write_bytes(content)
    page.send("input[type=file]", str(file))
    expected_labels = [[label.label, f"{label.score:.1%}"] for label in api.classify("resnet-50", content)]
    page.until(lambda: labels(page) == expected_labels, f"the labels {expected_labels}")
    image = page.one("img.image")
    assert image.get_attribute("alt") == "mine.jpg"
    assert page.driver.execute_script("return arguments[0].naturalWidth", image) > 100
    bars = page.one(".bars").rect
    assert image.rect["x"] + image.rect["width"] <= bars["x"]
    assert abs(image.rect["y"] - bars["y"]) < 30
    # The columns fill the width of the page.
    assert bars["x"] + bars["width"] > 0.9 * SIZES["desktop"][0]
    page.check()


def test_upload_limit_comes_from_the_server(browser, page_url, api):
    browser.open(page_url("streamlit"), "desktop")
    limit = api.describe("resnet-50", customized=True).metadata["max_bytes"] >> 20
    browser.until(lambda: f"{limit}MB per file" in browser.text(), f"a limit of {limit} MB")


@pytest.mark.parametrize("presentation", ["desktop"])
def test_invalid_image_shows_the_error_of_the_server(page, api, presentation, tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(IMAGE[: len(IMAGE) // 2])
    with pytest.raises(ClientError) as caught:
        api.classify("resnet-50", file)
    page.send("input[type=file]", str(file))
    page.until(lambda: "broken.jpg" in page.text(), "the file")
    page.one("[role=alert]", explain(caught.value))
    page.check()


@every_presentation
def test_summary_matches_the_api(page, api, presentation):
    page.click("[role=tab]", "Text")
    text = examples.reports()[0]
    page.until(lambda: page.one("textarea").get_attribute("value") == text, "the example")
    page.click("[role=radiogroup] label", MODEL)
    page.click("button", "Summarize")
    [summary] = api.summarize(MODEL, text)
    page.one(".answer", summary.text)
    page.check()
