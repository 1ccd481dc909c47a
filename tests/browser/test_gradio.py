"""The Gradio page: what it shows is what the API answers, on a phone, on a desktop, and in dark colors."""

import re

import pytest

from tests.browser.chromium import LOOKS
from torchserve_models.client import ClientError
from torchserve_models.client.cli_options import explain
from torchserve_models.demo import examples
from torchserve_models.sample_inputs import IMAGES
from training.images import draw_image

every_look = pytest.mark.parametrize("look", LOOKS)
LABEL = "arrow"
IMAGE = IMAGES[LABEL].read_bytes()
MODEL = "bart-large-cnn"
PLAYS = "return Array.from(document.querySelectorAll('video')).some(video => video.videoWidth > 0)"


@pytest.fixture
def page(browser, served, look):
    browser.open(served("gradio"), look)
    browser.one("#image-model label")
    return browser


def tab(page, name):
    page.click("button[role=tab]", name)


def labels(page):
    return [(row.text.split("\n")) for row in page.all("#labels li")]


def expected(api, content):
    return [[each.label, f"{each.score:.1%}"] for each in api.classify("resnet-50", content)]


def value(page, selector):
    return page.one(selector).get_attribute("value")


def put(page, selector, number):
    """A number into a field, as one would type it."""
    field = page.one(selector)
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].select()", field)
    field.send_keys(str(number), "\t")
    page.until(lambda: value(page, selector) == str(number), f"{number} in {selector}")


@every_look
def test_an_example_image_has_the_labels_of_the_api(page, api, look):
    """Case 21."""
    page.until(lambda: len(page.all("button.gallery-item[aria-label] img")) == 4, "four thumbnails")
    page.click(f"button.gallery-item[aria-label='{LABEL}']")
    wanted = expected(api, IMAGE)
    page.until(lambda: labels(page) == wanted, f"the labels {wanted}")
    assert wanted[0][0] == LABEL
    assert len(wanted) == 5
    assert re.fullmatch(r"Answered in \d+\.\d\d s", page.one("#labels .took").text)
    page.check()
    page.save(f"image-{look}")


@every_look
def test_a_file_that_is_no_image_is_refused_in_the_words_of_the_server(page, api, look, tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(IMAGE[: len(IMAGE) // 2])
    with pytest.raises(ClientError) as caught:
        api.classify("resnet-50", file)
    page.send("#image input[type=file]", str(file))
    page.one("[role=alert]", explain(caught.value))
    assert labels(page) == []
    page.check()


@pytest.mark.parametrize("look", ["phone"])
def test_a_file_that_is_sent_reaches_the_server_as_it_is(page, api, look, tmp_path):
    content = draw_image(91, 6)[1]
    file = tmp_path / "an image.jpg"
    file.write_bytes(content)
    page.send("#image input[type=file]", str(file))
    wanted = expected(api, content)
    page.until(lambda: labels(page) == wanted, f"the labels {wanted}")


@pytest.mark.parametrize("look", ["phone"])
def test_a_photo_of_the_camera_is_classified(page, api, look):
    """Chromium's make-believe camera shows nothing that the model knows; what counts is that five labels come."""
    page.click("button[aria-label='Capture from camera']")
    page.click("[title='grant webcam access'] button")
    page.until(lambda: page.driver.execute_script(PLAYS), "the camera's image")
    before = api.metrics().total("handler_requests_total", ModelName="resnet-50")
    page.click("button[aria-label='capture photo']")
    page.until(lambda: len(labels(page)) == 5, "five labels")
    assert api.metrics().total("handler_requests_total", ModelName="resnet-50") > before
    page.check()


@every_look
def test_a_text_has_the_summary_of_the_api(page, api, look):
    """Case 21."""
    tab(page, "Text")
    text = examples.reports()[0]
    page.click("button.gallery-item", f"{text[:60]}...")
    page.until(lambda: value(page, "#text textarea") == text, "the example")
    page.click("#text-model label", MODEL)
    page.click("button", "Summarize")
    [summary] = api.summarize(MODEL, text)
    page.until(lambda: value(page, "#summary textarea") == summary.text, summary.text)
    page.one("#took .took")
    for part in ("input[type=range]", "input[type=number]"):
        boxes = [page.one(f"#{name} {part}").rect for name in ("longest", "shortest", "beams")]
        assert len({(box["x"], box["width"]) for box in boxes}) == 1, boxes
    page.check()
    page.save(f"text-{look}")


@pytest.mark.parametrize("look", ["desktop"])
def test_lengths_and_beams_reach_the_model_and_errors_come_back(page, api, look):
    tab(page, "Text")
    text = examples.reports()[1]
    page.click("button.gallery-item", f"{text[:60]}...")
    page.until(lambda: value(page, "#text textarea") == text, "the example")
    put(page, "#longest input[type=number]", 9)
    put(page, "#beams input[type=number]", 3)
    page.click("button", "Summarize")
    parameters = {"max_new_tokens": 9, "num_beams": 3}
    [summary] = api.summarize(MODEL, text, **parameters)
    assert summary.text != api.summarize(MODEL, text)[0].text
    page.until(lambda: value(page, "#summary textarea") == summary.text, summary.text)
    put(page, "#shortest input[type=number]", 99)
    page.click("button", "Summarize")
    with pytest.raises(ClientError) as caught:
        api.summarize(MODEL, text, min_new_tokens=99, **parameters)
    page.one("[role=alert]", explain(caught.value))
    assert value(page, "#summary textarea") == ""


@every_look
def test_the_server_and_its_models(page, api, look):
    tab(page, "Server")
    names = sorted(entry.name for entry in api.list_models())
    page.until(
        lambda: [each.get_attribute("data-model") for each in page.all(".model")] == names, "the models"
    )
    text = page.one("#server").text
    for name in names:
        assert f"version {api.describe(name).version}" in text
    assert text.count("1 of 1 workers ready") == len(names)
    api.classify("resnet-50", IMAGE)
    counted = api.metrics().total("handler_requests_total", ModelName="resnet-50")
    page.until(lambda: requests(page, "resnet-50") == counted, f"{counted} requests")
    page.check()
    page.save(f"server-{look}")


def requests(page, model):
    lines = page.one(f'.model[data-model="{model}"]').text.lower().split("\n")
    return int(lines[lines.index("requests") + 1].replace(",", ""))


@pytest.mark.parametrize("look", ["desktop"])
def test_scaling_changes_the_workers(page, api, look):
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
