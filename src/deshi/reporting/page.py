"""From content to one HTML file that needs nothing else."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deshi.reporting.content import Content
from deshi.reporting.drawing import COLORS

PACKAGE = "deshi.reporting"


def render(content: Content, version: str, made: datetime) -> str:
    """The page. Every text is escaped by the template; only figures drawn here come in as markup.

    Args:
        content: what it shows.
        version: of deshi.
        made: the time stamp, the only thing that differs between two renderings of the same content.
    """
    environment = Environment(
        loader=PackageLoader(PACKAGE, "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    style = files(PACKAGE).joinpath("style.css").read_text(encoding="utf-8")
    template = environment.get_template("page.html.j2")
    return template.render(content=content, style=Markup(style), version=version, made=made, colors=len(COLORS))
