"""The client for asyncio does on a real service what the other one does."""

import asyncio
import os
import subprocess
import sys

import pytest

from atmc_client import AsyncClient, Client, Conflict, InvalidRequest, NotFound
from tests.api.conftest import wait_until
from tests.atmc_client.test_reuse import SPEC
from tests.atmc_client.test_transfer import ARTIFACT, CONTENT, break_off, serve_range
from tests.atmc_client.test_transport import answer
from tests.docs.blocks import block


@pytest.fixture
def files(new_files):
    """A network and a data set that nobody has sent."""
    return new_files / "model.safetensors", new_files / "data.npz"


def test_a_job_is_submitted_followed_and_deleted(api_url, files):
    model, data = files

    async def life():
        async with AsyncClient(api_url) as client:
            job = await client.submit(model, "digits_cnn", data, SPEC, name="looped")
            with pytest.raises(Conflict):
                await client.delete_job(job["id"])

            async def told():
                return [event async for event in client.events(job["id"], follow=True)]

            # One client serves both: the events come while the job is cancelled.
            following = asyncio.create_task(told())
            await client.cancel(job["id"])
            events = await asyncio.wait_for(following, 30)
            assert [event["state"] for event in events] == ["queued", "cancelled"]
            assert (await client.wait(job["id"]))["state"] == "cancelled"
            again = await client.submit(model, "digits_cnn", data, SPEC)
            assert again["model_id"] == job["model_id"]
            assert again["id"] in {each["id"] for each in await client.list_jobs(limit=5)}
            await client.delete_job(job["id"])
            with pytest.raises(NotFound):
                await client.get_job(job["id"])

    asyncio.run(life())


def test_a_broken_download_goes_on_by_range(scripted, tmp_path):
    listed = answer(200, {"data": [ARTIFACT]})
    scripted.script = [listed, break_off, serve_range]

    async def fetched():
        async with AsyncClient(scripted.url) as client:
            return await client.download("job_1", tmp_path)

    (path,) = asyncio.run(fetched())
    assert path.read_bytes() == CONTENT
    assert "Range" in scripted.seen[2].headers


def test_a_refused_job_leaves_no_upload(api_url, files):
    model, data = files

    async def refused():
        async with AsyncClient(api_url) as client:
            dataset = (await client.upload_dataset(data))["id"]
            with pytest.raises(InvalidRequest):
                await client.submit(model, "digits_cnn", "dst_" + "0" * 32, SPEC)
            assert await client.find_model(model, "digits_cnn") is None
            await client.delete_dataset(dataset)

    asyncio.run(refused())


def test_the_documentation_s_example_runs_as_it_stands(api_url, files):
    code = block("docs/reference/client.md", "import asyncio")
    for file in files:
        file.rename(file.with_stem("digits"))
    folder = files[0].parent
    environment = os.environ | {"ATMC_SERVER": api_url}
    with (
        Client(api_url) as client,
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as run,
    ):

        def queued():
            return client.list_jobs(labels={"study": "seeds"}, state="queued")

        try:
            wait_until(lambda: len(queued()) == 3 or run.poll() is not None)
            for job in queued():
                client.cancel(job["id"])
            said, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 0
    assert sorted(said.splitlines()) == [
        f"{seed} {state}" for seed in range(3) for state in ("cancelled", "queued")
    ]
