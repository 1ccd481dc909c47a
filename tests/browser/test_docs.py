"""The API documentation page shows the models and sends requests to them, on a phone and on a desktop."""

import pytest

from tests.browser.chromium import SIZES
from tests.server.fronted import in_front_of, needs_nginx
from training.reports import draw_example

every_size = pytest.mark.parametrize("size", SIZES)


pytestmark = needs_nginx


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running.url


@pytest.fixture
def page(browser, front, size):
    browser.open(f"{front}/docs", size)
    browser.one(".opblock-summary")
    return browser


@every_size
def test_page_lists_models_and_routes(page, size):
    text = page.text()
    for path in (
        "/predictions/resnet-50",
        "/v2/models/t5-small/infer",
        "/predict/text_summarize",
        "/v2/health/ready",
    ):
        assert path in text.replace("\u200b", "")
    page.check()


@every_size
def test_page_sends_a_request_to_a_model(page, size):
    operation = "#operations-t5-small-predict-t5-small"
    page.click(f"{operation} .opblock-summary-control")
    page.one(f"{operation} .opblock-body")
    page.check()
    page.click(f"{operation} .try-out__btn")
    area = page.one(f"{operation} textarea")
    page.driver.execute_script(
        "const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;"
        "set.call(arguments[0], arguments[1]);"
        "arguments[0].dispatchEvent(new Event('input', {bubbles: true}));",
        area,
        draw_example(5, 1)[0],
    )
    page.click(f"{operation} .execute")
    status = page.one(f"{operation} .live-responses-table tbody .response-col_status")
    assert status.text.strip().startswith("200")
    assert draw_example(5, 1)[1] in page.one(f"{operation} .live-responses-table tbody .highlight-code").text
    page.check()
