"""What the service has already is not sent again."""

import pytest

from atmc_client import Client, InvalidRequest

SPEC = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1},
}


@pytest.fixture
def files(new_files):
    """A network and a data set that nobody has sent."""
    return new_files / "model.safetensors", new_files / "data.npz"


@pytest.fixture
def client(api_url):
    with Client(api_url) as client:
        yield client


def test_the_same_files_are_sent_once(client, files):
    model, data = files
    assert client.find_model(model, "digits_cnn") is client.find_dataset(data) is None
    first = client.submit(model, "digits_cnn", data, SPEC)
    second = client.submit(model, "digits_cnn", data, SPEC, name="again")
    ids = [(job["model_id"], job["dataset_id"]) for job in (first, second)]
    assert ids[0] == ids[1]
    assert second["name"] == "again"
    third = client.submit(ids[0][0], None, ids[0][1], SPEC)
    assert (third["model_id"], third["dataset_id"]) == ids[0]
    (listed,) = client.list_models(q=ids[0][0])
    assert listed["sha256"] == client.list_models(sha256=listed["sha256"])[0]["sha256"]


def test_another_network_of_the_same_bytes_is_another(client, files):
    model, data = files
    first = client.submit(model, "digits_cnn", data, SPEC)
    how = {"mean": [0.5], "std": [0.25]}
    second = client.submit(model, "digits_cnn", data, SPEC, normalization=how)
    assert first["dataset_id"] == second["dataset_id"]
    assert first["model_id"] != second["model_id"]
    assert client.find_model(model, "digits_cnn", normalization=how) == second["model_id"]
    assert client.find_model(model, "lenet") is None


def test_a_wrong_spec_is_refused_before_anything_is_sent(client, files):
    model, data = files
    with pytest.raises(InvalidRequest):
        client.submit(model, "digits_cnn", data, SPEC | {"target": {"density": 2, "bits": 4}})
    assert client.find_dataset(data) is None
