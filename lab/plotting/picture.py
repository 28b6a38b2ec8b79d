"""A matplotlib figure as a file: SVG or PDF, the same bytes for the same figure, with alt text."""

import io
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.figure import Figure

FORMATS = {"svg": ("Date", "Creator", "Format", "Type"),
           "pdf": ("CreationDate", "Creator", "Producer")}  # fmt: skip


def picture(fig: Figure, form: str, title: str, alt: str) -> bytes:
    """The figure in a format of FORMATS: fixed id salt, no date, no version of any program.

    An SVG needs no font, since its text is outlined, and is an image with title and description for
    screen readers. A PDF embeds its fonts (TrueType, so that text can be searched and edited) and
    carries the same words as Title and Subject.
    """
    page = io.BytesIO()
    said = {"Title": title, "Subject": alt} if form == "pdf" else {}
    with mpl.rc_context(
        {"svg.hashsalt": "embedding-lab", "svg.fonttype": "path", "pdf.fonttype": 42}
    ):
        fig.savefig(page, format=form, metadata={**dict.fromkeys(FORMATS[form]), **said})
    return _described(page.getvalue().decode(), title, alt) if form == "svg" else page.getvalue()


def _described(svg: str, title: str, alt: str) -> bytes:
    """The SVG as an image with a title and a description for screen readers."""
    _, opening, rest = svg.partition("<svg ")  # drops the prolog, which no HTML page may hold
    attributes, end, body = rest.partition(">")
    if not (opening and end):
        raise ValueError("matplotlib wrote no <svg> element")
    words = f"<title>{escape(title)}</title>\n <desc>{escape(alt)}</desc>"
    return f'{opening}role="img" {attributes}{end}\n {words}{body}'.encode()
