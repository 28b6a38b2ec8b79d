"""An exported page in a real browser with the network cut, and what every page must meet.

``visit`` (a fixture of conftest.py) opens a file; :func:`faults` says what is wrong with it.
"""

import pytest

from lab import doctor

# WebGL in software; no sandbox, since CI runs as root in a container.
CHROMIUM = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader"]  # fmt: skip
DRAWN = "[...document.querySelectorAll('.canvas')].every(c => c.querySelector('.main-svg'))"
DESK = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
ZOOM = {"viewport": {"width": 640, "height": 450}, "color_scheme": "light"}  # 1280 px at 200 %
AXE = {"resultTypes": ["violations"], "preload": False}  # it would fetch style sheets: errors
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium; skips with a reason where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install embedding-lab[dev]")
    chromium = doctor.chromium()
    if not chromium:
        pytest.skip("no Chromium on the path; install it (Debian: chromium) to draw the pages")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """A function path, options -> the page, with ``problems`` and ``outside`` collected."""
    opened = []

    def go(path, **options):
        view = browser.new_page(**options)
        view.set_default_timeout(90_000)
        view.problems, view.outside = [], []
        view.on("pageerror", lambda error: view.problems.append(str(error)))
        view.on("console", lambda m: view.problems.append(m.text) if m.type == "error" else None)

        def guard(route):
            if route.request.url.startswith(("file:", "data:", "blob:")):
                return route.continue_()
            view.outside.append(route.request.url)
            return route.abort()

        view.route("**/*", guard)
        view.goto(path.as_uri())
        view.wait_for_function(DRAWN)
        opened.append(view)
        return view

    yield go
    for view in opened:
        view.close()


def faults(view):
    """What a page does that none may: in words, empty for a sound one."""
    found = [f"error: {problem}" for problem in view.problems]
    found += [f"asks another machine: {address}" for address in view.outside]
    width, shown = view.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    if width > shown:
        found.append(f"{width} px wide on a screen of {shown} px")
    found += [f"image without a text: {source}" for source in view.evaluate(
        "[...document.images].filter(i => !i.alt.trim()).map(i => i.src.slice(0, 80))"
    )]  # fmt: skip
    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.alt)"
    found += [f"image not drawn: {alt}" for alt in view.evaluate(broken)]
    return found + inaccessible(view)


def inaccessible(view):
    """The serious and critical findings of axe-core, each with the first element it names."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install .[dev]")
    return [
        f"axe {one['id']} ({one['impact']}): {one['nodes'][0]['html'][:160]}"
        for one in axe.Axe().run(view, options=AXE).response["violations"]
        if one["impact"] in SERIOUS
    ]
