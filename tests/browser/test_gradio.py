"""The Gradio page shows the results of the API on a phone, on a desktop, and in dark mode."""

import re

import pytest

from tests.browser.chromium import PRESENTATIONS
from torchserve_models.client import ClientError
from torchserve_models.client.error_messages import explain
from torchserve_models.demo import examples
from torchserve_models.sample_inputs import IMAGES
from training.images import draw_image

every_presentation = pytest.mark.parametrize("presentation", PRESENTATIONS)
LABEL = "arrow"
IMAGE = IMAGES[LABEL].read_bytes()
MODEL = "bart-large-cnn"
PLAYS = "return Array.from(document.querySelectorAll('video')).some(video => video.videoWidth > 0)"


@pytest.fixture
def page(browser, page_url, presentation):
    browser.open(page_url("gradio"), presentation)
    browser.one("#image-model label")
    return browser


def tab(page, name):
    page.click("button[role=tab]", name)


def labels(page):
    return [(row.text.split("\n")) for row in page.all("#labels li")]


def expected(api, content):
    return [[label.label, f"{label.score:.1%}"] for label in api.classify("resnet-50", content)]


def value(page, selector):
    return page.one(selector).get_attribute("value")


def put(page, selector, number):
    """Type a number into a field."""
    field = page.one(selector)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].select()", field)
    field.send_keys(str(number), "\t")
    page.until(lambda: value(page, selector) == str(number), f"{number} in {selector}")


@every_presentation
def test_labels_of_an_example_match_the_api(page, api, presentation):
    page.until(lambda: len(page.all("button.gallery-item[aria-label] img")) == 4, "four thumbnails")
    page.click(f"button.gallery-item[aria-label='{LABEL}']")
    expected_labels = expected(api, IMAGE)
    page.until(lambda: labels(page) == expected_labels, f"the labels {expected_labels}")
    assert expected_labels[0][0] == LABEL
    assert len(expected_labels) == 5
    assert re.fullmatch(r"Answered in \d+\.\d\d s", page.one("#labels .response-time").text)
    page.check()
    page.save(f"image-{presentation}")


@every_presentation
def test_invalid_image_shows_the_error_of_the_server(page, api, presentation, tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(IMAGE[: len(IMAGE) // 2])
    with pytest.raises(ClientError) as caught:
        api.classify("resnet-50", file)
    page.send("#image input[type=file]", str(file))
    page.one("[role=alert]", explain(caught.value))
    assert labels(page) == []
    page.check()


@pytest.mark.parametrize("presentation", ["phone"])
def test_uploaded_file_reaches_the_server_unchanged(page, api, presentation, tmp_path):
    content = draw_image(91, 6)[1]
    file = tmp_path / "an image.jpg"
    file.write_bytes(content)
    page.send("#image input[type=file]", str(file))
    expected_labels = expected(api, content)
    page.until(lambda: labels(page) == expected_labels, f"the labels {expected_labels}")


@pytest.mark.parametrize("presentation", ["phone"])
def test_camera_photo_is_classified(page, api, presentation):
    """Check only the number of labels, because the image of Chromium's fake camera fits no label."""
    page.click("button[aria-label='Capture from camera']")
    page.click("[title='grant webcam access'] button")
    page.until(lambda: page.driver.execute_script(PLAYS), "the camera's image")
    before = api.metrics().total("handler_requests_total", ModelName="resnet-50")
    page.click("button[aria-label='capture photo']")
    page.until(lambda: len(labels(page)) == 5, "five labels")
    page.until(
        lambda: api.metrics().total("handler_requests_total", ModelName="resnet-50") > before, "the request"
    )
    page.check()


@every_presentation
def test_summary_matches_the_api(page, api, presentation):
    tab(page, "Text")
    text = examples.reports()[0]
    page.click("button.gallery-item", f"{text[:60]}...")
    page.until(lambda: value(page, "#text textarea") == text, "the example")
    page.click("#text-model label", MODEL)
    page.click("button", "Summarize")
    [summary] = api.summarize(MODEL, text)
    page.until(lambda: value(page, "#summary textarea") == summary.text, summary.text)
    page.one("#response-time .response-time")
    for part in ("input[type=range]", "input[type=number]"):
        boxes = [page.one(f"#{name} {part}").rect for name in ("max-tokens", "min-tokens", "beams")]
        assert len({(box["x"], box["width"]) for box in boxes}) == 1, boxes
    page.check()
    page.save(f"text-{presentation}")


@pytest.mark.parametrize("presentation", ["desktop"])
def test_parameters_reach_the_model_and_errors_are_shown(page, api, presentation):
    tab(page, "Text")
    text = examples.reports()[1]
    page.click("button.gallery-item", f"{text[:60]}...")
    page.until(lambda: value(page, "#text textarea") == text, "the example")
    put(page, "#max-tokens input[type=number]", 9)
    put(page, "#beams input[type=number]", 3)
    page.click("button", "Summarize")
    parameters = {"max_new_tokens": 9, "num_beams": 3}
    [summary] = api.summarize(MODEL, text, **parameters)
    assert summary.text != api.summarize(MODEL, text)[0].text
    page.until(lambda: value(page, "#summary textarea") == summary.text, summary.text)
    put(page, "#min-tokens input[type=number]", 99)
    page.click("button", "Summarize")
    with pytest.raises(ClientError) as caught:
        api.summarize(MODEL, text, min_new_tokens=99, **parameters)
    page.one("[role=alert]", explain(caught.value))
    assert value(page, "#summary textarea") == ""


@every_presentation
def test_server_tab_shows_models_and_traffic(page, api, presentation):
    tab(page, "Server")
    names = sorted(entry.name for entry in api.list_models())
    page.until(
        lambda: [card.get_attribute("data-model") for card in page.all(".model")] == names, "the models"
    )
    text = page.one("#server").text
    for name in names:
        assert f"version {api.describe(name).version}" in text
    assert text.count("1 of 1 workers ready") == len(names)
    api.classify("resnet-50", IMAGE)
    page.until(
        lambda: (
            requests(page, "resnet-50")
            == api.metrics().total("handler_requests_total", ModelName="resnet-50")
        ),
        "the number of requests",
    )
    page.check()
    page.save(f"server-{presentation}")


def requests(page, model):
    lines = page.one(f'.model[data-model="{model}"]').text.lower().split("\n")
    return int(lines[lines.index("requests") + 1].replace(",", ""))


@pytest.mark.parametrize("presentation", ["desktop"])
def test_scaling_changes_the_workers(page, api, presentation):
    tab(page, "Server")
    page.click("#scale-model label", "t5-small")
    try:
        put(page, "#workers input", 2)
        page.click("button", "Scale")
        page.until(lambda: len(api.describe("t5-small").workers) == 2, "two workers")
        page.one('.model[data-model="t5-small"][data-ready="2"]')
        page.one("#scaled [role=status]")
        put(page, "#workers input", -1)
        page.click("button", "Scale")
        assert "InvalidParameter" in page.one("#scaled [role=alert]").text
        put(page, "#workers input", 1)
        page.click("button", "Scale")
        page.one('.model[data-model="t5-small"][data-ready="1"]')
        assert len(api.describe("t5-small").workers) == 1
        page.check()
    finally:
        api.scale("t5-small", 1)
