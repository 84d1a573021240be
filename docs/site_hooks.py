"""What makes a site of pages that are read on GitHub as well: files outside of docs/ that they link to, and notebooks."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Files of the repository's root that are pages of the site."""
HOMES = {"README.md": "index.md"}
"""Files that have a page of the site in their place."""
REPOSITORY = "repository"
"""The folder of the site for all other files outside of docs/."""

_LOADED = re.compile(r"""<(?:script|link|img|iframe|source|video)\b[^>]*\s(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
_LINK = re.compile(r"^ *```.*?^ *```|`[^`\n]+`(?!\])|(?<=\]\()(?!\w+:|#)([^)#\s]+)", re.MULTILINE | re.DOTALL)
"""A relative link up to its anchor; or code, which has none."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of the root, the files outside of docs/ that pages link to, and a page for each notebook."""
    from mkdocs.structure.files import File, InclusionLevel

    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=_markdown_of(json.loads(notebook.content_string))))
    for page in list(files.documentation_pages()):
        for link in filter(None, _LINK.findall(page.content_string)):
            target = _place(_source(page.src_uri), link)
            place = _page_of(target)
            if place.startswith(f"{REPOSITORY}/") and (ROOT / target).is_file() and place not in files.src_uris:
                inclusion = InclusionLevel.NOT_IN_NAV
                files.append(File.generated(config, place, abs_src_path=str(ROOT / target), inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to where their targets are on the site."""
    uri = page.file.src_uri

    def lead(link: re.Match[str]) -> str:
        if link[1] is None:
            return link[0]
        return posixpath.relpath(_page_of(_place(_source(uri), link[1])), posixpath.dirname(uri) or ".")

    return _LINK.sub(lead, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that loads anything from elsewhere: the site needs no network."""
    from mkdocs.exceptions import PluginError

    if loaded := _LOADED.search(output):
        raise PluginError(f"a page must load nothing from elsewhere, but {page.file.src_uri} loads {loaded[1]}; put it into docs/")
    return output


def _source(uri: str) -> str:
    """Where the file of a page is in the repository."""
    return uri if uri in PAGES else f"docs/{uri}"


def _place(source: str, link: str) -> str:
    """The path in the repository that a link of a file leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _page_of(target: str) -> str:
    """Where a file of the repository is on the site."""
    if target.startswith("docs/") and not target.endswith(".py"):
        inside = target.removeprefix("docs/")
        return f"{inside.removesuffix('.ipynb')}.md" if inside.endswith(".ipynb") else inside
    return HOMES.get(target, target if target in PAGES else f"{REPOSITORY}/{target}")


def _markdown_of(notebook: dict[str, Any]) -> str:
    """A notebook as a page: its text, its code, and what the code printed and drew."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif source:
            parts.append(f"```python\n{source}\n```")
            parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(filter(None, parts)) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        return f'<img alt="What the code above draws" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    text = "".join(data.get("text/plain", "")).rstrip()
    return text and f"```text\n{text}\n```"
