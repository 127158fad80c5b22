"""The page's files: whole, by the hashes of their packages, kept by browsers, shut in by policy."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

from api.page.files import site
from tests.api.conftest import Service, assert_problem

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "api" / "page"
STATIC = PAGE / "static"


def test_what_is_of_others_is_as_they_published_it() -> None:
    listed = {}
    for package in json.loads((PAGE / "vendor.json").read_text()):
        assert re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"])
        assert package["licence"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        listed |= {name: file["sha256"] for name, file in package["files"].items()}
    vendor = STATIC / "vendor"
    found = {
        str(path.relative_to(vendor)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.rglob("*.js")
    }
    assert found == listed


def test_an_installed_package_has_every_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["api.page"]
    packed = {path for pattern in patterns for path in PAGE.glob(pattern) if path.is_file()}
    assert packed == {path for path in PAGE.rglob("*") if path.suffix not in (".py", ".pyc")} - {
        path for path in PAGE.rglob("*") if path.is_dir()
    }


def test_nothing_stands_inline_and_nobody_else_is_asked() -> None:
    for path in [*STATIC.glob("*.js"), *STATIC.glob("*.css"), STATIC / "index.html"]:
        text = path.read_text()
        hosts = set(re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", text))
        assert hosts == set(), path
        assert not re.search(r"\bstyle=[\"']|\son\w+=[\"']|javascript:", text), path
    html = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert "<style" not in html


def test_the_page_is_asked_for_anew_and_its_files_are_kept(shared: Service) -> None:
    page = shared.http.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["Cache-Control"] == "no-cache"
    again = shared.http.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert len(named) >= 5
    for path in named:
        file = shared.http.get(f"/{path}")
        assert file.status_code == 200
        assert "immutable" in file.headers["Cache-Control"]
        assert file.headers["X-Content-Type-Options"] == "nosniff"
    plain = shared.http.get(f"/{named[-1]}", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.content == site().files[named[-1].split("/", 2)[2]].content
    assert_problem(shared.http.get(f"/page/{'0' * 16}/app.js"), 404, "not_found")
    assert_problem(shared.http.get(f"/page/{site().digest}/../files.py"), 404, "not_found")


def test_all_of_it_is_small() -> None:
    assert sum(len(file.packed) for file in site().files.values()) < 80_000
