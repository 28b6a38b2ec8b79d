"""One executed notebook as one offline HTML page: our template, no request to any host.

Three walls keep text from data from running as script: HTML is cut down to a list of harmless tags,
figures travel as JSON in a block that is never executed, and the page's own policy lets only
scripts run that carry its number.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape, unescape
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

import nbformat
from jinja2 import pass_context
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from lab.plotting.figures import PLOTLY

TEMPLATES = Path(__file__).with_name("templates")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_CONTROL = "<p><em>Here JupyterLab shows a control.</em></p>"
SHOWN = [
    PLOTLY, "image/svg+xml", "image/png", "image/jpeg",
    "text/html", "text/markdown", "text/latex", "text/plain",
]  # fmt: skip
TAGS = set(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img kbd li mark ol p pre s small span strong sub summary sup "
    "table tbody td tfoot th thead tr u ul var".split()
)
ATTRIBUTES = {"alt", "aria-label", "class", "colspan", "href", "id", "open", "role", "rowspan",
              "scope", "src", "start", "title"}  # fmt: skip
MATH = re.compile("\ue000(\\d+)\ue001")  # private-use characters: in no text, untouched by cleaning

TABLE = re.compile("<table.*?</table>", re.DOTALL)
SCROLLS = '<div class="scroll" role="group" aria-label="Table" tabindex="0">'  # not the page


def policy(nonce: str) -> str:
    """The page's content security policy: nothing from outside, only scripts with our number.

    ``unsafe-eval`` is for plotly's WebGL charts, which compile their drawing code; no script
    evaluates text from data. ``file:`` is the 'self' of a page opened from disk.
    """
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}' 'unsafe-eval'; "
        "style-src 'self' file: 'unsafe-inline'; img-src 'self' file: data: blob:; font-src data:"
    )


def nonce(content: bytes) -> str:
    """The number for a page made from ``content``: the same page for the same content.

    A text inside the content cannot know it, because it would have to hold its own digest.
    """
    return hashlib.sha256(content).hexdigest()[:32]


def render(notebook: Path, about: Mapping[str, str]) -> tuple[str, bool]:
    """The page of an executed notebook, and whether it needs plotly.

    ``about``: ``stem`` (the name of the page), ``title``, ``state`` and ``run`` (its name).

    Raises:
        ValueError: the file is not a notebook.
    """
    content = notebook.read_bytes()
    try:
        book = nbformat.reads(content.decode("utf-8"), as_version=4)
    except ValueError as error:
        raise ValueError(f"{notebook} is not a notebook: {error}") from None
    draws = prepare(book)
    number = nonce(content)
    shown = {**about, "draws": draws, "nonce": number, "policy": policy(number)}
    html, _ = _Exporter().from_notebook_node(book, {"page": shown})
    return html, draws


def drawing(figure: dict[str, Any], alt: str) -> Markup:
    """A place on a page where site.js draws the plotly figure; ``<`` cannot end its JSON block."""
    data = json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c")
    style = f"height:{int(figure.get('layout', {}).get('height') or 450)}px"
    return Markup(
        '<div class="drawing" role="group" aria-label="Interactive figure" tabindex="0">'
        f'<div class="canvas" role="figure" aria-label="{escape(alt)}" style="{style}"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def tame(html: str) -> str:
    """The HTML with harmless tags and attributes only, described pictures and scoped headers."""
    import bleach

    text = re.sub(r"<(style|script)\b.*?</\1\s*>", "", html, flags=re.DOTALL | re.IGNORECASE)
    schemes = {"http", "https", "mailto", "data"}
    text = bleach.clean(text, tags=TAGS, attributes=_harmless, protocols=schemes, strip=True)
    text = re.sub(r"<img(?![^>]*\bsrc=)[^>]*>", "<em>(a picture not in the page)</em>", text)
    text = re.sub(r'<img(?![^>]*\balt="[^"])', '<img alt="Picture without a description"', text)
    body = re.compile(r"<tbody.*?</tbody>", re.DOTALL)
    text = body.sub(lambda part: part[0].replace("<th>", '<th scope="row">'), text)
    return text.replace("<th>", '<th scope="col">')


def mathml(tex: str, *, display: bool) -> str:
    r"""The formula as MathML, or the TeX itself, marked as such, where it cannot be read.

    The element is serialised here: the library's own text form undoes XML escaping, so that
    ``\text{<img ...>}`` would become markup.
    """
    from latex2mathml import exceptions
    from latex2mathml.converter import Converter

    errors = [e for e in vars(exceptions).values() if isinstance(e, type)]
    known = tuple(e for e in errors if issubclass(e, Exception))
    kind = "block" if display else "inline"
    try:
        tree = Converter(display=kind).convert_to_element(tex.strip())
    except known:
        return f'<code class="tex">{escape(tex.strip())}</code>'
    _resolve(tree)
    return tostring(tree, encoding="unicode")


def _resolve(element: Element) -> None:
    """Character references that the library leaves in texts become the characters."""
    for part in element.iter():
        part.text = unescape(part.text) if part.text else part.text


def _harmless(tag: str, name: str, value: str) -> bool:
    """Whether a tag may keep it: pictures from inside the page, links to the web or the page.

    Links to files beside the source notebook lead nowhere from a site. Schemes are checked here,
    because bleach takes ``javascript:1`` for a host with a port.
    """
    address = value.strip().lower()
    if name == "src":
        return tag == "img" and address.startswith("data:image/")
    if name == "href":
        return tag == "a" and address.startswith(("https://", "http://", "mailto:", "#"))
    return name in ATTRIBUTES


def prepare(book: nbformat.NotebookNode) -> bool:
    """Whether there is a plotly figure to draw; widgets go, every picture gets its alt text."""
    book.metadata.pop("widgets", None)
    draws = False
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for place, cell in enumerate(code, start=1):
        for output in cell.outputs:
            data = output.get("data", {})
            draws = draws or PLOTLY in data
            if WIDGET in data:
                output.data = {"text/html": NO_CONTROL}
            for mime in SHOWN[:4]:
                if mime in data:
                    about = output.metadata.setdefault(mime, {})
                    about["alt"] = about.get("alt") or _described(data, place)
    return draws


def _described(data: dict[str, Any], place: int) -> str:
    """The figure's plain-text form where that says something, else that nobody described it."""
    text = " ".join(str(data.get("text/plain", "")).split())
    if text and not text.startswith(("<", "Figure(", "Figure({")):
        return text
    return f"Figure of code cell {place}, saved without a description"


def picture(output: nbformat.NotebookNode, mime: str) -> str:
    """An image inside the page, with its alt text and caption."""
    about, data = output.metadata[mime], output.data[mime]
    code = b64encode(data.encode()).decode() if mime.endswith("xml") else "".join(data.split())
    image = f'<img src="data:{mime};base64,{escape(code)}" alt="{escape(about["alt"])}">'
    return _captioned(f'<div class="paper">{image}</div>', about)


def figure(output: nbformat.NotebookNode) -> str:
    """A plotly output as a place where it is drawn."""
    about = output.metadata[PLOTLY]
    return _captioned(drawing(output.data[PLOTLY], about["alt"]), about)


def _captioned(inside: str, about: dict[str, Any]) -> str:
    """A figure element, with a caption where one was saved."""
    caption = about.get("caption")
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{inside}{words}</figure>"


class _Renderer(IPythonRenderer):
    """Markdown to HTML; formulas are set aside until the rest has been cleaned."""

    def __init__(self, **options: Any) -> None:
        super().__init__(escape=False, exclude_anchor_links=True, **options)
        self.formulas: list[str] = []

    def _set_aside(self, tex: str, display: bool) -> str:
        self.formulas.append(mathml(tex, display=display))
        return f"\ue000{len(self.formulas) - 1}\ue001"

    def inline_math(self, body: str) -> str:
        return self._set_aside(body, display=False)

    def block_math(self, body: str) -> str:
        return self._set_aside(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return self._set_aside(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)


class _Exporter(HTMLExporter):
    """nbconvert with our template and the filters that it names."""

    def __init__(self) -> None:
        super().__init__(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])

    @property
    def default_config(self) -> Any:
        config = super().default_config
        config.NbConvertBase.display_data_priority = SHOWN
        return config

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        text = re.sub("[\ue000\ue001]", "", "".join(source))
        cell = context.get("cell", {})
        renderer = _Renderer(attachments=cell.get("attachments", {}))
        html = tame(MarkdownWithMath(renderer=renderer).render(text))
        html = TABLE.sub(rf"{SCROLLS}\g<0></div>", html)
        return MATH.sub(lambda found: renderer.formulas[int(found[1])], html)

    def default_filters(self) -> Any:
        yield from super().default_filters()
        own: dict[str, Callable[..., str]] = {"tame": tame, "picture": picture, "drawing": figure}
        yield from own.items()
