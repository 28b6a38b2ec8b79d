"""A notebook in a real JupyterLab in a real browser, for tests marked ``browser``.

>>> @pytest.mark.browser
... def test_a_slider_moves_the_figure(open_notebook):
...     page = open_notebook(NOTEBOOKS / "08_bench.ipynb", checkpoint="random:bert")
...     page.locator(".widget-dropdown select").first.select_option("mean")

``open_notebook`` is a fixture of conftest.py. A copy of the notebook is opened in an empty folder
of the test's own by a server on 127.0.0.1 that all tests of a process share and that has its own
settings, the parameters are set as papermill does, every cell is run, and the page comes back. No
label on it may be cut off. At the end of the test its kernels end, and the page must not have asked
for anything outside this machine, nor have thrown an error.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

TOKEN = "test"
# No news and no update check, which ask outside hosts; no windowing: every cell is in the page.
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false, '
    '"doNotDisturbMode": true}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
OPTIONS = [
    "--no-browser", "--allow-root", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
    f"--IdentityProvider.token={TOKEN}", "--ServerApp.terminals_enabled=False",
    "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
]  # fmt: skip
IDLE = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
    return session?.kernel?.status === 'idle'; }"""
RUN = "async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
CELL_ERRORS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
    .flatMap(cell => cell.toJSON().outputs || [])
    .filter(output => output.output_type === 'error')
    .map(output => `${output.ename}: ${output.evalue}`)"""
CUT = """() => [...document.querySelectorAll('.widget-label, .jupyter-button')]
    .filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"""


@pytest.fixture(scope="session")
def served(browser, tmp_path_factory):
    """The folder and the address of a JupyterLab, and a browser context that knows its scripts."""
    root = tmp_path_factory.mktemp("jupyterlab")
    context = browser.new_context(viewport={"width": 1280, "height": 1600})
    with jupyterlab(root) as base:
        yield root, base, context
        context.close()


@pytest.fixture
def open_notebook(served):
    """A function notebook, parameters -> the page (playwright) in which all its cells have run."""
    root, base, context = served
    folder = Path(tempfile.mkdtemp(dir=root, prefix="test-"))
    outside, errors = [], []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/*", lambda route: _stay_here(route, outside))

    def opened(notebook, /, timeout=120, **parameters):
        with_parameters(notebook, folder / notebook.name, parameters)
        name = urllib.parse.quote(f"{folder.name}/{notebook.name}")
        page.goto(f"{base}/lab/tree/{name}?token={TOKEN}&reset", wait_until="domcontentloaded")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=120_000)
        page.wait_for_function(IDLE, timeout=120_000)
        page.set_default_timeout(timeout * 1000)
        page.evaluate(RUN)
        failed = page.evaluate(CELL_ERRORS)
        assert not failed, f"cells of {notebook.name} failed: {failed}"
        cut = page.evaluate(CUT)
        assert not cut, f"labels of {notebook.name} are cut off: {cut}"
        page.set_default_timeout(90_000)
        return page

    yield opened
    page.close()
    for session in json.loads(_ask(f"{base}/api/sessions")):
        _ask(f"{base}/api/sessions/{session['id']}", method="DELETE")
    assert not errors, f"the page threw {errors}"
    assert not outside, f"the page asked other machines: {outside}"


@contextmanager
def jupyterlab(root, *, seconds=180):
    """The address of a JupyterLab that serves ``root`` alone, with settings of its own in it."""
    own = root / ".jupyter"
    for name, text in SETTINGS.items():
        path = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime",
               "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
               "IPYTHONDIR": "ipython", "LAB_CACHE": "cache"}  # fmt: skip
    variables = os.environ | {name: str(own / folder) for name, folder in folders.items()}
    variables.pop("LAB_MODE", None)  # a person looks at it: not a batch run
    address = f"http://127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--ServerApp.root_dir={root}",
               f"--ServerApp.port={address.rpartition(':')[2]}"]  # fmt: skip
    log = root / "jupyterlab.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=variables, cwd=root)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(f"{address}/api/status"):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def with_parameters(notebook, path, parameters):
    """A copy of a notebook with a cell behind its parameters that sets some of them."""
    book = nbformat.read(notebook, nbformat.NO_CONVERT)
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    (place,) = (
        place for place, cell in enumerate(book.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )  # fmt: skip
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    nbformat.write(book, path)


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _ask(address, method="GET"):
    asked = urllib.request.Request(
        address, method=method, headers={"Authorization": f"token {TOKEN}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.read()


def _answers(address):
    try:
        return bool(_ask(address))
    except OSError:
        return False


def _stay_here(route, outside):
    """Let through what stays on this machine; note and stop the rest."""
    address = urllib.parse.urlparse(route.request.url)
    if address.scheme in ("data", "blob") or address.hostname == "127.0.0.1":
        return route.continue_()
    outside.append(route.request.url)
    return route.abort()
