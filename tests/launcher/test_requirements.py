"""What is installed comes by its hashes: every pin has some, and another file is refused."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from requirements.__main__ import CONSTRAINTS, EXTRAS, FOLDER, UNHASHED, normalized, pins
from requirements.audit import judge

ROOT = Path(__file__).parents[2]
FILES = ("all.txt", *EXTRAS)


def blocks(name: str) -> list[str]:
    text = (FOLDER / name).read_text()
    return re.findall(r"^[^\s#].*(?:\n .*)*", text, re.MULTILINE)


def test_every_pin_has_hashes_and_nothing_else_has() -> None:
    pinned = pins(CONSTRAINTS.read_text())
    assert pinned.keys() >= UNHASHED
    hashed = {name: release for name, release in pinned.items() if name not in UNHASHED}
    assert pins((FOLDER / "all.txt").read_text()) == hashed
    for name in FILES:
        found = blocks(name)
        assert len(found) > 50
        for block in found:
            assert re.fullmatch(r"\S+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+", block), block
    everything = set(blocks("all.txt"))
    for name in EXTRAS:
        assert set(blocks(name)) < everything, name


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_installs_what_its_extras_name_by_hash(name: str) -> None:
    text = (ROOT / f"docker/{name}.Dockerfile").read_text()
    assert f"--require-hashes --no-deps -r {name}.txt" in text
    assert "--no-build-isolation" in text
    hashed = pins((FOLDER / f"{name}.txt").read_text())
    needed = {"api": ("fastapi", "standardwebhooks"), "worker": ("onnxruntime", "celery")}[name]
    assert {*needed, "setuptools", "sqlalchemy"} <= hashed.keys()
    assert not {"pytest", "ruff", "playwright"} & hashed.keys()


def test_setup_asks_for_hashes_first() -> None:
    makefile = (ROOT / "Makefile").read_text()
    checked = makefile.index("--require-hashes --no-deps -r requirements/all.txt")
    assert checked < makefile.index("--no-build-isolation -c constraints.txt -e '.[dev]'")


def test_a_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "harmless-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("harmless.py", "")
        info = "harmless-1.0.dist-info"
        named = "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", named)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", kind)
        archive.writestr(f"{info}/RECORD", "")
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    listed = tmp_path / "requirements.txt"

    def install(digest: str) -> "subprocess.CompletedProcess[str]":
        listed.write_text(f"harmless==1.0 \\\n    --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "install", "--target", tmp_path / "site"]
        offline = ["--isolated", "--no-index", "--find-links", tmp_path]
        asked = ["--require-hashes", "--no-deps", "-r", listed]
        return subprocess.run([*command, *offline, *asked], capture_output=True, text=True)

    refused = install("0" * 64)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "site").exists()
    assert install(right).returncode == 0
    assert (tmp_path / "site/harmless.py").exists()


def test_the_audit_tells_what_it_was_not_told() -> None:
    known = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
    well = {"name": "b", "version": "1", "vulns": []}
    unasked = {"name": "c", "skip_reason": "not found"}
    assert judge([well]) == ["1 of 1 pins audited"]
    assert judge([known, well, unasked]) == [
        "warning: a 1: PYSEC-1, mended in 2",
        "warning: 1 of 3 pins were NOT audited: c",
        "2 of 3 pins audited",
    ]
    assert judge([])[0].startswith("warning")


@pytest.mark.slow
def test_the_list_of_what_is_installed_fits_its_schema_and_has_every_pin(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(r"^sbom: setup\n\t\$\(BIN\)/(.+)$", makefile, re.MULTILINE)
    written = tmp_path / "sbom.json"
    options = recipe.replace("$(BIN)/python", sys.executable).replace("sbom.json", str(written))
    # `--validate` holds it to CycloneDX's schema.
    assert "--validate" in options
    command = [str(Path(sys.executable).with_name(options.split()[0])), *options.split()[1:]]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    listed = json.loads(written.read_text())
    assert listed["bomFormat"] == "CycloneDX"
    assert listed["metadata"]["component"]["name"] == "atmc"
    releases = {normalized(each["name"]): each["version"] for each in listed["components"]}
    hashed = pins((FOLDER / "all.txt").read_text())
    assert {name: releases.get(name) for name in hashed} == hashed
    assert sum("licenses" in each for each in listed["components"]) > 0.9 * len(hashed)
