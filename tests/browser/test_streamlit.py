"""The Streamlit page: what it shows is what the API answers, on a phone, on a desktop, and in dark colors."""

import re

import pytest

from tests.browser.chromium import LOOKS, SIZES
from torchserve_models.client import ClientError
from torchserve_models.client.cli_options import explain
from torchserve_models.demo import examples
from torchserve_models.sample_inputs import IMAGES
from training.images import draw_image

every_look = pytest.mark.parametrize("look", LOOKS)
LABEL = "arrow"
IMAGE = IMAGES[LABEL].read_bytes()
MODEL = "bart-large-cnn"


@pytest.fixture
def page(browser, served, look):
    browser.open(served("streamlit"), look)
    browser.one(".bars li")
    return browser


def labels(page):
    return [(row.text.split("\n")) for row in page.all(".bars li")]


@every_look
def test_an_example_image_has_the_labels_of_the_api(page, api, look):
    wanted = [[each.label, f"{each.score:.1%}"] for each in api.classify("resnet-50", IMAGE)]
    page.until(lambda: labels(page) == wanted, f"the labels {wanted}")
    assert re.fullmatch(r"Answered in \d+\.\d\d s", page.one(".took").text)
    page.check()
    page.save(f"streamlit-{look}")


@pytest.mark.parametrize("look", ["desktop"])
def test_a_file_is_shown_beside_its_labels(page, api, look, tmp_path):
    """Case 21."""
    content = draw_image(91, 6)[1]
    file = tmp_path / "mine.jpg"
    file.write_bytes(content)
    page.send("input[type=file]", str(file))
    wanted = [[each.label, f"{each.score:.1%}"] for each in api.classify("resnet-50", content)]
    page.until(lambda: labels(page) == wanted, f"the labels {wanted}")
    image = page.one("img.image")
    assert image.get_attribute("alt") == "mine.jpg"
    assert page.driver.execute_script("return arguments[0].naturalWidth", image) > 100
    bars = page.one(".bars").rect
    assert image.rect["x"] + image.rect["width"] <= bars["x"]
    assert abs(image.rect["y"] - bars["y"]) < 30
    # Nothing of a third of the page's width is empty: the columns fill it.
    assert bars["x"] + bars["width"] > 0.9 * SIZES["desktop"][0]
    page.check()


def test_the_limit_that_it_shows_is_the_servers(browser, served, api):
    """Case 21."""
    browser.open(served("streamlit"), "desktop")
    limit = api.describe("resnet-50", customized=True).metadata["max_bytes"] >> 20
    browser.until(lambda: f"{limit}MB per file" in browser.text(), f"a limit of {limit} MB")


@pytest.mark.parametrize("look", ["desktop"])
def test_a_file_that_is_no_image_is_refused_in_the_words_of_the_server(page, api, look, tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(IMAGE[: len(IMAGE) // 2])
    with pytest.raises(ClientError) as caught:
        api.classify("resnet-50", file)
    page.send("input[type=file]", str(file))
    page.until(lambda: "broken.jpg" in page.text(), "the file")
    page.one("[role=alert]", explain(caught.value))
    page.check()


@every_look
def test_a_text_has_the_summary_of_the_api(page, api, look):
    page.click("[role=tab]", "Text")
    text = examples.reports()[0]
    page.until(lambda: page.one("textarea").get_attribute("value") == text, "the example")
    page.click("[role=radiogroup] label", MODEL)
    page.click("button", "Summarize")
    [summary] = api.summarize(MODEL, text)
    page.one(".answer", summary.text)
    page.check()
