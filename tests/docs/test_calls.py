"""Calls that the documents show, to an API that asks for keys; nobody runs its jobs."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from atmc_client import Client
from jobstore.database import Database, make_engine
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from keeper.erasure import erase_tenants
from tests.atmc_client.conftest import closed_port, new_files, serving_api
from tests.docs.blocks import block, fenced, run

new_files, closed_port = new_files, closed_port

ADMIN_KEY = "the-first-admin-of-the-documents"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, closed_port: int) -> Settings:
    home = tmp_path_factory.mktemp("documents")
    return Settings(home=home, broker_url=f"redis://127.0.0.1:{closed_port}/0")


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with serving_api(settings, ATMC_ADMIN_KEY=ADMIN_KEY) as url:
        yield url


@pytest.fixture
def shell(url: str, tmp_path: Path) -> dict[str, str]:
    """What an admin's shell knows."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    key = {"ATMC_ADMIN_KEY": ADMIN_KEY, "ATMC_API_KEY": ADMIN_KEY}
    return key | {"ATMC_SERVER": url, "SERVICE": url, "CURL_HOME": str(tmp_path)}


@contextmanager
def keeping(settings: Settings) -> Iterator[None]:
    """Have erased what the keeper erases every few seconds."""
    database = Database(make_engine(settings))
    store, done = ObjectStore.from_settings(settings), threading.Event()

    def keep() -> None:
        while not done.wait(0.2):
            erase_tenants(database, store, settings.home / "logs")

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        database.engine.dispose()


def test_a_team_comes_has_terms_and_goes(
    shell: dict[str, str], url: str, settings: Settings, tmp_path: Path
) -> None:
    create = block("README.md", "ATMC_API_KEY=$ATMC_ADMIN_KEY atmc keys create")
    with Client(url, key=run(create, tmp_path, **shell).strip()) as client:
        assert client.list_jobs() == []
    patched = run(block("docs/operations.md", "curl -X PATCH"), tmp_path, **shell)
    assert json.loads(patched)["terms"]["max_running_jobs"] == 2, patched

    audit = block("docs/operations.md", "atmc audit list")
    # The heads that were kept are of the day on which this runs.
    audit = audit.replace("heads-2030-01-01.json", "heads-$(date +%F).json")
    said = run(audit, tmp_path, **shell)
    (heads,) = tmp_path.glob("heads-*.json")
    assert [each["tenant"] for each in json.loads(heads.read_text())]
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {"key.create", "tenant.change"} <= {each.get("action") for each in records}, records
    assert said

    with keeping(settings):
        gone = run(block("docs/operations.md", "atmc tenants erase"), tmp_path, "vision\n", **shell)
    assert gone.endswith("vision is gone\n")


@pytest.fixture
def sent(url: str, new_files: Path) -> dict[str, str]:
    """The ids of a network and a data set, by what the documents have in their place."""
    with Client(url, key=ADMIN_KEY) as client:
        model = client.upload_model(new_files / "model.safetensors", "digits_cnn")
        dataset = client.upload_dataset(new_files / "data.npz")
    return {"mdl_...": model["id"], "dst_...": dataset["id"]}


def keys(document: Any) -> set[str]:
    return {
        f"{name}.{inner}" if inner else name
        for name, value in document.items()
        for inner in ({"", *value} if name in ("counts", "links") else {""})
    }


def test_sweeps_are_made_and_look_as_they_are_shown(
    shell: dict[str, str], sent: dict[str, str], url: str, tmp_path: Path
) -> None:
    made = []
    (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {ADMIN_KEY}"\nsilent\n')
    for script in fenced("docs/sweeps.md").values():
        for name, value in sent.items():
            script = script.replace(name, value)
        made.append(json.loads(run(script, tmp_path, **shell)))
    grid, goal = made
    assert (len(grid["trials"]), grid["name"]) == (6, "six points")
    assert (goal["goal"]["attack"], goal["trial_limit"]) == ("autoattack", 8)
    written = json.loads(block("docs/interfaces/sweeps.md", '{"id": "sweep_...'))
    answer = httpx.get(
        url + grid["links"]["self"], headers={"Authorization": f"Bearer {ADMIN_KEY}"}
    ).json()
    assert keys(answer) == keys(written)
    assert answer["trials"][0].keys() == written["trials"][0].keys()
