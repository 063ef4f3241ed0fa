"""The site in a browser: real clicks, keyboard, narrow and wide, light and dark, axe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_leaderboard_site import known, original, site

from vcmbench.release.find import known_releases

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
build = pytest.importorskip("vcmbench.leaderboard.site.build")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
__all__ = ["known", "original", "site"]

PAGES = (
    "index.html",
    "models/quiet-net.html",
    "models/evil-net.html",
    "datasets/wires-0.1.0.html",
    "compare/wires-0.1.0-spec-1.html",
)
LEADERBOARD = Path(__file__).parents[1] / "leaderboard"
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A page that fails the test on any error of a script or of the content policy."""
    context = browser.new_context(viewport=WIDE)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    opened.on("requestfailed", lambda request: errors.append(request.url))
    yield opened
    context.close()
    assert errors == []


def show(page, site, path):
    page.goto((site / path.split("?")[0]).as_uri() + "".join(path.partition("?")[1:]))


def names(page):
    return page.locator(".board table").first.locator("tbody tr:visible th a").all_inner_texts()


def test_sorting_by_clicks(page, site):
    show(page, site, "index.html")
    assert names(page) == ["quiet-net", "evil-net", "loud-net"]
    head = page.get_by_role("columnheader", name="Test MAE")
    page.get_by_role("button", name="Test MAE").click()
    assert names(page) == ["quiet-net", "evil-net", "loud-net"]
    assert head.get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="Test MAE").click()
    assert names(page) == ["loud-net", "evil-net", "quiet-net"]
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Model").first.click()
    assert names(page) == ["evil-net", "loud-net", "quiet-net"]
    assert head.get_attribute("aria-sort") is None


def test_filters(page, site):
    show(page, site, "index.html")
    page.get_by_label("Find").fill("quiet TESTER")
    assert names(page) == ["quiet-net"]
    assert page.locator(".count").inner_text() == "1 of 3 models"
    page.get_by_label("Find").fill("")
    page.get_by_label("Track").select_option("extra data")
    assert names(page) == ["evil-net"]
    further = page.locator(".board table").nth(1).locator("tbody tr")
    assert further.locator("visible=true").count() == 0
    page.get_by_label("Track").select_option("")
    assert further.locator("visible=true").count() == 1
    assert page.locator(".count").inner_text() == "3 of 3 models"
    page.get_by_label("Find").fill("nobody")
    assert names(page) == []
    assert page.get_by_text("No model fits the filter.").is_visible()


def test_two_models_chosen_by_clicks_are_compared(page, site):
    show(page, site, "index.html")
    page.get_by_label("Compare evil-net").check()
    page.get_by_label("Compare loud-net").check()
    page.get_by_label("Compare quiet-net").check()  # The latest two stay.
    page.get_by_role("link", name="Compare loud-net and quiet-net").click()
    page.wait_for_url("**/compare/**")
    heads = page.locator(".comparison").first.locator("thead th:visible").all_inner_texts()
    assert [head for head in heads if head.strip()][-3:] == [
        "loud-net",
        "quiet-net",
        "second ÷ first",
    ]
    row = page.locator(".comparison").first.locator("tbody tr").first
    cells = row.locator("td:visible").all_inner_texts()
    first, second = float(cells[0]), float(cells[1])
    assert first == pytest.approx(4 * second, rel=0.05)
    assert cells[2].startswith("× 0.25")
    assert row.locator("td.better").inner_text() == cells[1]
    visible = page.locator(".curve[data-model]:not(.reference):visible")
    assert {c.get_attribute("data-model") for c in visible.all()} == {"loud-net", "quiet-net"}
    page.get_by_label("First model").select_option("evil-net")
    heads = page.locator(".comparison").first.locator("thead th:visible").all_inner_texts()
    assert "evil-net" in heads
    assert "loud-net" not in heads


def test_comparing_a_model_with_itself_breaks_nothing(page, site):
    show(page, site, "compare/wires-0.1.0-spec-1.html?first=quiet-net&second=quiet-net")
    page.get_by_label("Second model").select_option("evil-net")
    page.get_by_label("Second model").select_option(page.get_by_label("First model").input_value())
    assert page.locator(".ratio:visible").count() == 0
    show(page, site, "compare/wires-0.1.0-spec-1.html?first=%3Cscript%3E&second=no-such")
    assert page.locator(".comparison").first.is_visible()


def test_hostile_text_runs_nothing(page, site):
    for path in ("index.html", "models/evil-net.html", "compare/wires-0.1.0-spec-1.html"):
        show(page, site, path)
        assert "owned" not in page.title()
        assert page.locator("img").count() == 0


def test_the_policy_stops_scripts_that_got_in_all_the_same(browser, site):
    context = browser.new_context()
    opened = context.new_page()
    show(opened, site, "index.html")
    opened.evaluate(
        "const s = document.createElement('script'); s.textContent = 'document.title=\"owned\"';"
        "document.body.append(s)"
    )
    assert "owned" not in opened.title()
    context.close()


def test_everything_can_be_reached_by_the_keyboard(page, site):
    show(page, site, "index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    button = page.get_by_role("button", name="Test MAE")
    for _ in range(40):
        page.keyboard.press("Tab")
        if button.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert names(page) == ["loud-net", "evil-net", "quiet-net"]


def test_the_theme_follows_the_system_and_is_remembered(browser, site):
    context = browser.new_context(color_scheme="dark")
    opened = context.new_page()
    show(opened, site, "index.html")
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(background) == "rgb(20, 23, 27)"
    opened.get_by_role("button", name="Light theme").click()
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    show(opened, site, "models/quiet-net.html")
    assert opened.evaluate(background) == "rgb(255, 255, 255)"
    context.close()


def test_pages_are_whole_without_scripts(browser, site):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    show(opened, site, "index.html")
    assert opened.locator(".board table").first.locator("tbody th a").all_inner_texts() == [
        "quiet-net",
        "evil-net",
        "loud-net",
    ]
    assert opened.locator(".controls:visible").count() == 0
    show(opened, site, "compare/wires-0.1.0-spec-1.html")
    assert opened.locator(".comparison").first.locator("thead [data-model]:visible").count() == 3
    context.close()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_nothing_is_wider_than_the_screen_and_axe_finds_nothing(browser, site, path, scheme, size):
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    opened = context.new_page()
    show(opened, site, path)
    assert opened.evaluate("document.documentElement.scrollWidth") <= size["width"]
    found = axe.Axe().run(opened)
    assert found.violations_count == 0, found.generate_report()
    context.close()


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_our_own_leaderboard(browser, tmp_path, monkeypatch, size):
    """Real results: every submission is shown, on pages that fit and that axe passes."""
    for module in ("vcmbench.release.find", "vcmbench.leaderboard.validate"):
        monkeypatch.setattr(f"{module}.known_releases", known_releases)
    folder = build.build_site(LEADERBOARD, tmp_path / "site").index.parent
    context = browser.new_context(viewport=size, bypass_csp=True)
    opened = context.new_page()
    for path in sorted(folder.rglob("*.html")):
        opened.goto(path.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= size["width"], path.name
        assert axe.Axe().run(opened).violations_count == 0, path.name
    opened.goto((folder / "index.html").as_uri())
    submissions = {path.name for path in (LEADERBOARD / "submissions").iterdir()}
    assert set(names(opened)) == submissions
    context.close()
