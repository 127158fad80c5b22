"""Names, labels and metadata, and the lists that filter by them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from atmc_client import Client, InvalidRequest
from tests.atmc_client.test_reuse import SPEC

SAID = {"name": "first", "labels": {"team": "vision", "dépôt": "a:b c"}, "metadata": {"run": 7}}


@pytest.fixture
def client(api_url):
    with Client(api_url) as client:
        yield client


@pytest.fixture
def made(client, new_files):
    """A model, a data set and a job, of which the same is said; and what is to find each."""
    model = client.upload_model(new_files / "model.safetensors", "digits_cnn", **SAID)
    dataset = client.upload_dataset(new_files / "data.npz", **SAID)
    job = client.submit(model["id"], None, dataset["id"], SPEC, **SAID)
    yield {
        "model": (model, client.list_models, client.get_model, client.change_model),
        "dataset": (dataset, client.list_datasets, client.get_dataset, client.change_dataset),
        "job": (job, client.list_jobs, client.get_job, client.change_job),
    }
    client.cancel(job["id"])
    client.delete_job(job["id"])
    client.delete_model(model["id"])
    client.delete_dataset(dataset["id"])


def test_they_are_said_at_first_changed_later_and_found(made):
    for each, listing, get, change in made.values():
        assert {name: each[name] for name in SAID} == SAID
        found = listing(labels=SAID["labels"], q="IRS", sort="name")
        assert [row["id"] for row in found] == [each["id"]]
        at = datetime.fromisoformat(each["created_at"])
        assert listing(labels=SAID["labels"], created_before=at) == []
        changed = change(each["id"], name=None, labels={"team": "speech"})
        assert (changed["name"], changed["labels"]) == (None, {"team": "speech"})
        assert changed["metadata"] == SAID["metadata"]
        assert get(each["id"]) == changed
        assert listing(labels=SAID["labels"]) == []
        assert listing(labels={"team": "speech"}, created_after=at) == [changed]
        with pytest.raises(InvalidRequest) as refused:
            change(each["id"], labels={"a:b": "c"})
        assert refused.value.param.startswith("labels")


def test_jobs_are_also_found_by_method_and_state_and_in_another_order(client, made):
    first = made["job"][0]
    ids = (first["model_id"], None, first["dataset_id"])
    others = [client.submit(*ids, SPEC, name=name, labels={"turn": "1"}) for name in ("b", "a")]
    listed = client.list_jobs(labels={"turn": "1"}, method="atmc", state="queued", sort="name")
    assert [job["name"] for job in listed] == ["a", "b"]
    assert client.list_jobs(labels={"turn": "1"}, method="evaluate") == []
    with pytest.raises(InvalidRequest):
        client.list_jobs(created_after=datetime(2030, 1, 1))
    for job in others:
        client.cancel(job["id"])
        client.delete_job(job["id"])


def test_the_command_line_says_and_filters_them(atmc, client, new_files):
    said = ("--name", "mine", "--label", "team=cli", "--label", "of=x=y", "--metadata", '{"a": 1}')
    network = ("--architecture", "digits_cnn")
    done = atmc("upload", new_files / "model.safetensors", *network, *said, "--json")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert (model["labels"], model["metadata"]) == ({"team": "cli", "of": "x=y"}, {"a": 1})
    only = ("--label", "team=cli", "--search", "mine", "--sort", "-name", "--json")
    assert [each["id"] for each in json.loads(atmc("models", *only).stdout)] == [model["id"]]
    assert json.loads(atmc("models", *only, "--until", "1h").stdout) == []
    size = ("--density", "0.1", "--bits", "4", "--epsilon", "0.1", "--no-wait", "--json")
    job = json.loads(
        atmc(
            "submit", "--model", model["id"], "--data", new_files / "data.npz", *size, *said
        ).stdout
    )
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    listed = atmc("list", *only, "--since", since, "--method", "atmc")
    assert [each["id"] for each in json.loads(listed.stdout)] == [job["id"]]
    for wrong in (("--label", "team"), ("--since", "yesterday"), ("--sort", "size")):
        assert atmc("list", *wrong).returncode == 2
    assert atmc("upload", new_files / "data.npz", "--metadata", "[1]").returncode == 2


def test_the_command_line_changes_them_later(atmc, made):
    for each, _, get, _ in made.values():
        said = ("--name", "[red]night", "--label", "team=speech", "--label", "of=x")
        done = atmc("change", each["id"], *said)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{each['id']} ([red]night)\nlabels: of=x, team=speech\n"
        done = atmc("change", each["id"], "--no-labels", "--metadata", '{"run": 8}', "--json")
        changed = json.loads(done.stdout)
        assert changed == get(each["id"])
        assert (changed["name"], changed["labels"]) == ("[red]night", {})
        assert changed["metadata"] == {"run": 8}
        assert json.loads(atmc("change", each["id"], "--name", "", "--json").stdout)["name"] is None
    for wrong, why in (
        ((each["id"],), "nothing to change"),
        (("sweep_1", "--name", "a"), "no id of a job"),
        ((each["id"], "--no-labels", "--label", "a=b"), "exclude each other"),
        ((each["id"], "--metadata", "{"), "not JSON"),
        (("job_none", "--name", "a"), "job_none"),
    ):
        done = atmc("change", *wrong)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
