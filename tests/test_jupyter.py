"""The harness of the browser tests, on a notebook of three cells."""

import pytest
from tiny_notebook import build

LOOK = """
import ipywidgets as widgets
from lab.explore.faces import Status, is_live
assert is_live() and n == 5
status = Status()
button = widgets.Button(description="go")
button.on_click(lambda _: status.fail("<img src=x onerror=alert(1)> " * n))
display(button, status.widget)
"""


@pytest.mark.browser
def test_a_copy_runs_live_with_its_parameters_a_control_answers_and_a_broken_cell_is_seen(
    open_notebook, tmp_path
):
    (folder := tmp_path / "kept").mkdir()
    kept = build(folder / "01_a.ipynb", LOOK)
    before = kept.read_bytes()
    page = open_notebook(kept, n=5)
    page.get_by_role("button", name="go", exact=True).click()
    page.get_by_role("status").filter(has_text="<img src=x onerror=alert(1)> " * 5).wait_for()
    assert kept.read_bytes() == before
    with pytest.raises(AssertionError, match=r"02_b.ipynb failed: .*ZeroDivisionError"):
        open_notebook(build(folder / "02_b.ipynb", "1 / 0"))


SLOW = """
import ipywidgets as widgets
from anywidget import AnyWidget
from traitlets import Unicode
from lab.explore.faces import show

class Slow(AnyWidget):
    _esm = '''export default {
      initialize: () => new Promise(begun => setTimeout(begun, 3000)),
      render({ model, el }) {
        const write = () => { el.textContent = model.get("word"); };
        model.on("change:word", write);
        write();
      } };'''
    word = Unicode("begins").tag(sync=True)

def begin(_):
    place.children = [slow := Slow()]
    slow.word = "heard"

class Explorer:
    def live(self):
        button = widgets.Button(description="begin")
        button.on_click(begin)
        return widgets.VBox([button, place])

place = widgets.VBox()
show(Explorer())
"""


@pytest.mark.browser
def test_a_widget_that_takes_three_seconds_to_begin_still_hears_its_kernel(open_notebook, tmp_path):
    page = open_notebook(build(tmp_path / "01_a.ipynb", SLOW))
    page.wait_for_function("AbortSignal.timeout.patient")
    page.get_by_role("button", name="begin", exact=True).click()
    page.get_by_text("heard", exact=True).wait_for()
    assert not page.get_by_text("begins", exact=True).count()
