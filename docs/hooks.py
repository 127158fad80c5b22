"""What mkdocs cannot know by itself: pages beside docs/, and the API's document.

Links are written so that they hold in the repository, where most people read. In the site the pages
beside docs/ stand beside the others, and a link to a file of the code becomes its path.
"""

import json
import re
import tempfile
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
# Pages that stand elsewhere in the site than in the repository, by their path there.
_MOVED = {
    "README.md": "index.md",
    "docs/index.md": "where.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
_LINK = re.compile(r"(?P<label>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside docs/, pictures that pages show, and the OpenAPI document."""
    index = files.get_file_from_path("index.md")
    if index is not None:
        files.remove(index)
    for name, uri in _MOVED.items():
        files.append(File.generated(config, uri, content=(_ROOT / name).read_text()))
    for path in sorted((_ROOT / "benchmarks" / "results").glob("*.svg")):
        name = path.relative_to(_ROOT).as_posix()
        files.append(File.generated(config, name, content=path.read_bytes()))
    return files


def on_pre_build(config: MkDocsConfig) -> None:
    """Write the API's document, of the code as it is now, for the page that shows it."""
    from api.app import create_app
    from jobstore.settings import Settings

    target = _ROOT / "build" / "openapi.json"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        document = create_app(Settings(home=Path(home))).openapi()
    for calls in document["paths"].values():
        for call in calls.values():
            # Refusals stand in interfaces/errors.md, once: here each is a page.
            call["responses"] = {
                status: said for status, said in call["responses"].items() if status < "400"
            }
    target.write_text(json.dumps(document))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site."""
    origins = {uri: name for name, uri in _MOVED.items()}
    origin = origins.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = PurePosixPath(origin).parent

    def turned(link: re.Match[str]) -> str:
        label, target = link["label"], link["target"]
        path, mark, anchor = target.partition("#")
        if not path or ":" in path:
            return link[0]
        found = (_ROOT / folder / path).resolve()
        try:
            name = found.relative_to(_ROOT).as_posix()
        except ValueError:
            return link[0]
        inside = _MOVED.get(name, name.removeprefix("docs/"))
        if files.get_file_from_path(inside) is None:
            return link[0] if label.startswith("!") else f"{label[1:-1]} (`{name}`)"
        up = "../" * (len(PurePosixPath(page.file.src_uri).parts) - 1)
        return f"{label}({up}{inside}{mark}{anchor})"

    return _LINK.sub(turned, markdown)
