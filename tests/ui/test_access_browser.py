"""Who sees what, in real browsers: profiles, the token, light and dark, the menu on a phone.

Run with `pytest -m slow tests/ui`. No model is needed: the pages stand without one.
"""

import re
import urllib.error
import urllib.request

import pytest
from test_browser import browser  # noqa: F401 - a fixture

from ui_browser import command, free_port, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOKEN = "a-token-for-this-test"


@pytest.fixture
def server(home):
    """Starts the page over this test's data folder, again and again on the same port."""
    port = free_port()

    def start(**environment):
        return running(command(port), port, {"GLM_RAG_HOME": str(home), **environment})

    return start


def visitor(browser, **options):  # noqa: F811
    """A browser of its own: nothing is shared with another."""
    return browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US", **options)


def opened(context, address):
    """A tab in which the page stands."""
    page = context.new_page()
    page.goto(address)
    page.get_by_test_id("stMainBlockContainer").get_by_role("heading").first.wait_for()
    return page


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def test_a_profile_lives_in_its_browser_until_its_code_is_entered_elsewhere(browser, server):  # noqa: F811
    mine, other = visitor(browser), visitor(browser)
    with server() as address:
        page = opened(mine, address)
        page.get_by_text("中文").click()
        page.get_by_role("link", name="设置").click()
        page.wait_for_url(re.compile(r"/settings\?lang=zh&kb="))
    with server() as address:  # a restart
        page = opened(mine, f"{address}/settings")
        tab(page, "本浏览器")
        page.get_by_text("显示代码").click()
        code = page.get_by_test_id("stCode").inner_text().strip()

        page = opened(other, f"{address}/settings")
        tab(page, "This browser")
        page.get_by_test_id("stTextInputField").fill(code)
        page.get_by_role("button", name="Use it here").click()
        page.get_by_role("heading", name="设置").wait_for()
        kept = {cookie["name"]: cookie for cookie in other.cookies()}["glm_rag_profile"]
        assert kept["value"] == code
        assert (kept["httpOnly"], kept["sameSite"]) == (True, "Lax")
    mine.close()
    other.close()


def test_light_and_dark_count_for_every_page_and_are_remembered(browser, server):  # noqa: F811
    context = visitor(browser, color_scheme="light")

    def ground(page):
        return page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")

    with server() as address:
        page = opened(context, f"{address}/settings")
        light = ground(page)
        tab(page, "This browser")
        page.get_by_role("button", name="Dark").click()
        page.wait_for_function(
            "light => getComputedStyle(document.querySelector('.stApp')).backgroundColor !== light",
            arg=light,
        )
        assert ground(opened(context, address)) == ground(page) != light
    context.close()


def test_without_the_token_only_its_form_is_seen(browser, server):  # noqa: F811
    context = visitor(browser)
    with server(GLM_RAG_UI__TOKEN=TOKEN) as address:
        page = context.new_page()
        page.goto(f"{address}/settings?lang=en")
        page.get_by_placeholder("Token").fill("not-the-token")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("This is not the token").wait_for()
        for path in ("/static/index.html", "/_stcore/host-config", "/_stcore/upload_file/a/b"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address + path)
        page.get_by_placeholder("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        page.get_by_role("heading", name="Settings").wait_for()
        assert page.url == f"{address}/settings?lang=en"

        page = opened(visitor(browser), f"{address}/?token={TOKEN}&lang=en")
        assert "token" not in page.url
        assert all(TOKEN not in cookie["value"] for cookie in page.context.cookies())
        page.context.close()
    context.close()


def test_on_a_phone_the_menu_closes_after_a_choice_and_nothing_is_wider_than_the_screen(
    browser,  # noqa: F811
    server,
):
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="zh-CN")
    with server() as address:
        page = opened(context, address)
        page.get_by_test_id("stExpandSidebarButton").click()
        for name in ("知识库", "检索测试", "设置", "对话"):
            page.get_by_role("link", name=name).click()
            page.get_by_test_id("stExpandSidebarButton").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.get_by_test_id("stExpandSidebarButton").click()
    context.close()
