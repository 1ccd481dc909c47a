"""The Streamlit page: what it shows is what the API answers, on a phone, on a desktop, and in dark colours."""

import pytest

from client import ClientError
from client.cli_options import explain
from demo import examples
from tests.browser.chromium import LOOKS
from training.pictures import picture

every_look = pytest.mark.parametrize("look", LOOKS)
LABEL, PICTURE = picture(examples.SEED, examples.PICTURES[0])
MODEL = "bart-large-cnn"


@pytest.fixture
def page(browser, served, look):
    browser.open(served("streamlit"), look)
    browser.one("button", "Classify")
    return browser


def labels(page):
    return [(row.text.split("\n")) for row in page.all(".bars li")]


@every_look
def test_an_example_picture_has_the_labels_of_the_api(page, api, look):
    page.click("button", "Classify")
    wanted = [[each.label, f"{each.score:.1%}"] for each in api.classify("resnet-50", PICTURE)]
    page.until(lambda: labels(page) == wanted, f"the labels {wanted}")
    page.check()
    page.save(f"streamlit-{look}")


@pytest.mark.parametrize("look", ["desktop"])
def test_a_file_that_is_no_picture_is_refused_in_the_words_of_the_server(page, api, look, tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(PICTURE[: len(PICTURE) // 2])
    with pytest.raises(ClientError) as caught:
        api.classify("resnet-50", file)
    page.send("input[type=file]", str(file))
    page.until(lambda: "broken.jpg" in page.text(), "the file")
    page.click("button", "Classify")
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
