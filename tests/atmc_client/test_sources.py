"""What lies elsewhere is named by its URI, and fetched by the service."""

import asyncio
import hashlib
import json
import os
import re
import signal

import pytest

from atmc_client import AsyncClient, Client, InvalidRequest
from tests.atmc_client.terminal import Terminal
from tests.atmc_client.test_reuse import SPEC


@pytest.fixture
def client(api_url):
    with Client(api_url) as client:
        yield client


@pytest.fixture
def there(web, new_files):
    """The URIs of a network and of a data set that nobody has named."""
    for name in ("model.safetensors", "data.npz"):
        web.answers[f"/{name}"] = (200, {"ETag": '"one"'}, (new_files / name).read_bytes())
    return f"{web.url}/model.safetensors", f"{web.url}/data.npz"


def newest(client):
    """The ids of the newest model and data set."""
    listed = client.list_models(limit=1), client.list_datasets(limit=1)
    return [each["id"] for found in listed for each in found]


def test_a_job_is_made_of_what_lies_elsewhere_and_its_results_are_put_there(
    client, there, new_files
):
    model, data = there
    job = client.submit(model, "digits_cnn", data, SPEC, results="s3://results/nightly/")
    assert job["waiting"] is not None
    assert job["waiting"]["code"] == "fetching_inputs"
    results = job["results"]
    assert results is not None
    assert results["uri"] == f"s3://results/nightly/{job['id']}"
    assert (results["connection"], results["state"]) == ("lake", "waiting")
    told = []
    fetched = client.wait_model(job["model_id"], on_bytes=lambda *state: told.append(state))
    content = (new_files / "model.safetensors").read_bytes()
    assert fetched["sha256"] == hashlib.sha256(content).hexdigest()
    assert (fetched["state"], fetched["source"]["uri"]) == ("ready", model)
    assert told[-1] == ("model.safetensors", len(content), len(content))
    assert client.wait_dataset(job["dataset_id"])["filename"] == "data.npz"
    assert client.get_dataset(job["dataset_id"])["state"] == "ready"
    # A file of these bytes need not be sent any more, and goes together with a URI.
    again = client.submit(new_files / "model.safetensors", "digits_cnn", {"uri": data}, SPEC)
    assert again["model_id"] == job["model_id"]
    assert again["dataset_id"] != job["dataset_id"]


def test_a_sweep_waits_for_it_and_leaves_nothing_where_it_is_refused(api_url, client, there):
    model, data = there

    async def begun():
        async with AsyncClient(api_url) as asynchronous:
            how = {"architecture": "digits_cnn", "labels": {"night": "1"}}
            return await asynchronous.sweep(model, data, SPEC, grid={"bits": [8, 4]}, **how)

    sweep = asyncio.run(begun())
    assert (sweep["labels"], len(sweep["trials"])) == ({"night": "1"}, 2)
    assert newest(client) == [sweep["model_id"], sweep["dataset_id"]]
    assert client.get_model(sweep["model_id"])["state"] == "ready"
    with pytest.raises(InvalidRequest):
        client.sweep(sweep["model_id"], data, SPEC, grid={"bits": [9]})
    assert newest(client) == [sweep["model_id"], sweep["dataset_id"]]
    client.cancel_sweep(sweep["id"])


def test_what_cannot_be_had_is_refused_with_its_reason(client, there, web):
    model, data = there
    for uri, code in (
        ("https://elsewhere.example/data.npz", "source_not_allowed"),
        (f"{web.url}/none", "source_missing"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            client.upload_dataset(uri)
        assert (refused.value.code, refused.value.param) == (code, "uri")
    made = client.upload_dataset({"uri": data, "connection": "web", "sha256": "0" * 64})
    assert made["state"] == "fetching"
    with pytest.raises(InvalidRequest) as failed:
        client.wait_dataset(made["id"])
    assert (failed.value.code, failed.value.param) == ("source_changed", data)
    assert made["id"] in {each["id"] for each in client.list_datasets(state="failed")}
    with pytest.raises(ValueError, match="architecture"):
        client.submit(model, None, data, SPEC)


def test_the_command_line_takes_uris_too(atmc, client, there):
    model, data = there
    done = atmc("upload", model, "--architecture", "digits_cnn", "--connection", "web", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["state"], made["source"]["connection"]) == ("ready", "web")
    options = ("--density", "0.1", "--bits", "4", "--epsilon", "0.1", "--no-wait")
    more = ("--results", "s3://results/nightly", "--label", "from=elsewhere")
    done = atmc("submit", "--model", made["id"], "--data", data, *options, *more)
    assert done.returncode == 0, done.stderr
    assert "labels: from=elsewhere" in done.stdout
    assert "results at s3://results/nightly/job_" in done.stdout
    listed = atmc("connections").stdout
    assert "s3://results/" in listed
    assert json.loads(atmc("connections", "--json").stdout) == client.connections()
    wrong = atmc("upload", __file__, "--connection", "web")
    assert (wrong.returncode, "go with a URI" in wrong.stderr) == (2, True)
    unknown = atmc("upload", "hf://datasets/mnist").stderr
    assert "there is no file 'hf://datasets/mnist': a URI begins with s3://" in unknown


def test_one_connection_is_named_for_all_uris_of_a_command(atmc, client, there):
    model, data = there
    size = ("--density", "0.1", "--bits", "4", "--epsilon", "0.1")
    inputs = {
        "submit": ("--model", model, "--data", data, *size, "--no-wait"),
        "evaluate": (model, "--data", data, "--epsilon", "0.1", "--no-wait"),
        "sweep": (model, "--data", data, "--densities", ".1", "--bits", "4", "--epsilon", "0.1"),
    }
    for command, given in inputs.items():
        options = (command, *given, "--architecture", "digits_cnn", "--json", "--connection")
        done = atmc(*options, "web")
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        sources = (
            client.get_model(made["model_id"])["source"],
            client.get_dataset(made["dataset_id"])["source"],
        )
        assert [source and source["connection"] for source in sources] == ["web", "web"]
        # The other one is there, too, but does not have such files.
        done = atmc(*options, "lake")
        assert (done.returncode, "source_not_allowed" in done.stderr) == (2, True), done.stderr
    ids = newest(client)
    results = ("--results", "s3://results/a", "--no-wait", "--json", "--connection")
    own = ("submit", "--model", ids[0], "--data", ids[1], *size)
    job = json.loads(atmc(*own, *results, "lake").stdout)
    assert job["results"]["connection"] == "lake"
    assert atmc(*own, *results, "web").returncode == 2
    done = atmc(*own, "--connection", "web")
    assert (done.returncode, "goes with a URI" in done.stderr) == (2, True)


def test_who_follows_sees_what_is_fetched_and_then_what_the_job_waits_for(api_url, client, there):
    model, data = there
    size = ("--density", "0.1", "--bits", "4", "--epsilon", "0.1", "--architecture", "digits_cnn")
    terminal = Terminal("--server", api_url, "submit", "--model", model, "--data", data, *size)
    terminal.until("No worker is known")
    os.killpg(terminal.process.pid, signal.SIGINT)
    code, _ = terminal.end()
    assert code == 130
    assert re.search(r"job_\w+: fetching_inputs", terminal.plain)
    (job,) = client.list_jobs(state="queued", limit=1)
    assert job["waiting"] is not None
    assert client.get_dataset(job["dataset_id"])["state"] == "ready"
    # A data set that is another one by then: the job says so.
    data = {"uri": data, "sha256": "0" * 64}
    made = client.submit(job["model_id"], None, data, SPEC)
    terminal = Terminal("--server", api_url, "watch", made["id"])
    code, written = terminal.end()
    assert code == 1
    assert "source_changed" in written
