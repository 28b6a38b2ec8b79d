"""How the site shows figures, formulas and links to notebooks, without asking any host."""

import json
from typing import Any

import generated
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import ReferenceRole, SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from lab import paths, reading
from lab.export import page

POLICY = (
    "default-src 'none'; script-src 'self' file: 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' file: 'unsafe-inline'; img-src 'self' file: data: blob:; "
    "font-src 'self' file: data:; connect-src 'self' file:"
)


class LabFigure(SphinxDirective):
    """A figure of ``figures/`` with its caption and its alt text, drawn if it is plotly's."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The figure as docutils nodes: text of a caption is never read as markup."""
        stem = paths.FIGURES / self.arguments[0]
        about = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        figure = nodes.figure(classes=["lab"])
        if about["kind"] == "static":
            up = "../" * self.env.docname.count("/")
            uri = f"{up}../figures/{self.arguments[0]}.svg"
            figure += nodes.image(uri=uri, alt=about["alt"], classes=["dark-light"])
        else:
            drawing = json.loads(stem.with_suffix(".plotly.json").read_text(encoding="utf-8"))
            figure += nodes.raw("", page.drawing(drawing, about["alt"]), format="html")
        if about["caption"]:
            figure += nodes.caption("", about["caption"])
        self.env.note_dependency(str(stem.with_suffix(".json")))
        return [figure]


class LabGallery(SphinxDirective):
    """A small picture of every notebook that left a static one, and the way to all its figures."""

    def run(self) -> list[nodes.Node]:
        """A list of links, each the picture and the notebook's title."""
        cards = nodes.bullet_list(classes=["gallery"])
        for folder in sorted(path for path in paths.FIGURES.iterdir() if path.is_dir()):
            page_of = f"_generated/gallery/{folder.name}"
            here = self.env.app.builder.get_relative_uri(self.env.docname, page_of)
            link = nodes.reference("", "", refuri=here, internal=True)
            first = next(iter(sorted(folder.glob("*.svg"))), None)
            if first is not None:
                about = json.loads(first.with_suffix(".json").read_text(encoding="utf-8"))
                up = "../" * (self.env.docname.count("/") + 1)
                uri = f"{up}figures/{folder.name}/{first.name}"
                link += nodes.image(uri=uri, alt=about["alt"], classes=["dark-light"])
            link += nodes.inline("", generated.title(folder))
            cards += nodes.list_item("", nodes.paragraph("", "", link))
        return [cards]


class Notebook(ReferenceRole):
    """A link to a notebook by its number; plain words as long as there is no such notebook."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link, with the notebook's title unless another text is given."""
        path = next(iter(sorted(paths.NOTEBOOKS.glob(f"{self.target}_*.ipynb"))), None)
        if path is None:
            return [nodes.inline("", self.title)], []
        words = self.title if self.has_explicit_title else reading.title(reading.load(path))
        page_of = f"_generated/notebooks/{path.stem}"
        here = self.env.app.builder.get_relative_uri(self.env.docname, page_of)
        return [nodes.reference("", words, refuri=here, internal=True)], []


def inline_formula(writer: HTML5Translator, node: nodes.math) -> None:
    """The formula as MathML."""
    writer.body.append(page.mathml(node.astext(), display=False))
    raise nodes.SkipNode


def block_formula(writer: HTML5Translator, node: nodes.math_block) -> None:
    """The formula as MathML, in a line of its own."""
    formula = page.mathml(node.astext(), display=True)
    about = 'class="formula" role="group" aria-label="Formula" tabindex="0"'
    writer.body.append(f"<div {about}>{formula}</div>")
    raise nodes.SkipNode


def scripts(app: Sphinx, name: str, template: str, context: dict, doctree: Any) -> None:
    """Nothing; plotly is on the pages that draw something, and the policy on all."""
    context["policy"] = POLICY
    raw = doctree.findall(nodes.raw) if doctree is not None else []
    if any('class="drawing"' in part.astext() for part in raw):
        app.add_js_file("plotly.min.js", loading_method="defer")
        app.add_js_file("site.js", loading_method="defer")


def left_out(app: Sphinx, what: str, name: str, item: Any, skip: bool, options: Any) -> bool | None:
    """Whether autodoc leaves it out: methods that scikit-learn puts into every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    app.add_directive("lab-figure", LabFigure)
    app.add_directive("lab-gallery", LabGallery)
    app.add_role("notebook", Notebook())
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.connect("config-inited", generated.write)
    app.connect("html-page-context", scripts)
    app.connect("autodoc-skip-member", left_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
