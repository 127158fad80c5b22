"""Profiles: where the service is, what it is shown, and what its user mostly asks for."""

import json
import os
import ssl
from http.server import BaseHTTPRequestHandler

import pytest
import trustme

from atmc_client.profiles import WrongProfile, default_path, read_profiles
from tests.atmc_client.conftest import in_this_process
from tests.atmc_client.test_cli import OPTIONS
from tests.atmc_client.test_cli import files as files_to_send

files = files_to_send


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the file where it is looked for, private to its user; returns its path."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("ATMC_SERVER", "ATMC_PROFILE", "ATMC_API_KEY", "ATMC_TOKEN_COMMAND", "ATMC_CA"):
        monkeypatch.delenv(name, raising=False)

    def written(text, mode=0o600):
        path = default_path()
        path.write_text(text)
        path.chmod(mode)
        return path

    return written


def answer(handler: BaseHTTPRequestHandler) -> None:
    body = json.dumps({"data": [], "has_more": False, "next": None}).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def shown(scripted, *options, **environment):
    """What the server was shown as Authorization by `atmc list`."""
    scripted.script = [answer]
    done = in_this_process(*options, "list", environment=environment)
    assert done.returncode == 0, done.stderr
    return scripted.seen[-1].headers.get("Authorization")


def test_the_file_is_where_xdg_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".config" / "atmc.toml"


def test_an_option_goes_before_the_environment_before_the_profile(write, scripted, closed_port):
    away = f"http://127.0.0.1:{closed_port}"
    write(f'[profile.default]\nserver = "{scripted.url}"\n[profile.away]\nserver = "{away}"\n')
    assert shown(scripted) is None
    assert in_this_process("--profile", "away", "list").returncode == 3
    assert in_this_process("list", environment={"ATMC_PROFILE": "away"}).returncode == 3
    shown(scripted, "--profile", "default", ATMC_PROFILE="away")
    shown(scripted, ATMC_SERVER=scripted.url, ATMC_PROFILE="away")
    shown(scripted, "--server", scripted.url, ATMC_SERVER=away)


def test_a_profile_s_token_is_shown_to_its_server_alone(write, scripted):
    write(
        f'[profile.text]\nserver = "{scripted.url}"\ntoken = "atmc_one"\n'
        f'[profile.variable]\nserver = "{scripted.url}"\ntoken_env = "TEAM_KEY"\n'
        f'[profile.command]\nserver = "{scripted.url}"\ntoken_command = "echo atmc_three"\n'
        '[profile.other]\nserver = "http://other.example"\ntoken = "atmc_four"\n'
    )
    assert shown(scripted, "--profile", "text") == "Bearer atmc_one"
    assert shown(scripted, "--profile", "variable", TEAM_KEY="atmc_two") == "Bearer atmc_two"
    assert shown(scripted, "--profile", "command") == "Bearer atmc_three"
    assert shown(scripted, "--profile", "other", "--server", scripted.url) is None
    # The environment's key goes before the profile's, and an option before that.
    assert shown(scripted, "--profile", "command", ATMC_API_KEY="mine") == "Bearer mine"
    command = ("--profile", "text", "--token-command", "echo asked")
    assert shown(scripted, *command, ATMC_API_KEY="mine") == "Bearer asked"
    assert "ATMC_API_KEY" not in os.environ
    unset = in_this_process("--profile", "variable", "list")
    assert unset.returncode == 2
    assert "TEAM_KEY, which is not set" in unset.stderr


def test_its_options_are_the_commands_defaults(write, api_url, files):
    path = write(
        f'[profile.team]\nserver = "{api_url}"\n'
        "[profile.team.options.submit]\n"
        'epsilon = "8/255"\ndensity = 0.5\nseed = 7\nwait = false\nset = ["training.rho=0.01"]\n'
    )
    model = ("--model", files / "model.safetensors", "--architecture", "digits_cnn")
    data = ("--data", files / "data.npz", "--bits", "4", "--json")
    # In this order, too.
    made = in_this_process("--profile", "team", "--config", path, "submit", *model, *data)
    assert made.returncode == 0, made.stderr
    spec = json.loads(made.stdout)["spec"]
    assert spec["target"] == {"density": 0.5, "bits": 4}
    assert (spec["threat"]["epsilon"], spec["seed"]) == ("8/255", 7)
    assert spec["training"] == {"rho": 0.01}
    again = in_this_process("--profile=team", "submit", *model, *data, *OPTIONS, "--seed", "1")
    assert json.loads(again.stdout)["spec"]["target"]["density"] == 0.1
    assert json.loads(again.stdout)["spec"]["seed"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profile.a]\nserver = x", "not TOML: .*line 2"),
        ("profile = 3", "profile: must be a table"),
        ("[profil.a]", "profil: no such key, perhaps profile"),
        ('[profile.a]\nsever = "x"', "profile.a.sever: no such key, perhaps server"),
        ("[profile.a]\nserver = 3", "profile.a.server: must be a text"),
        ('[profile.a]\ntoken = "x"\ntoken_env = "X"', "token_env and token exclude each other"),
        ('[profile.a]\nca = "none.pem"', "profile.a.ca: there is no file .*none.pem"),
    ],
)
def test_what_the_file_may_not_say_is_named(write, text, said):
    with pytest.raises(WrongProfile, match=said):
        read_profiles(write(text))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("options.submt.bits = 4", "options.submt: no such key, perhaps submit"),
        ("options.submit.bit = 4", "options.submit.bit: no such key, perhaps bits"),
        ("options.submit = 4", "options.submit: no such key"),
        ("options.submit.wait = 'no'", "options.submit.wait: must be true or false"),
        ("options.submit.set = 'a=1'", "options.submit.set: must be a list"),
        ("options.submit.bits = [4]", "options.submit.bits: must be a text or a number"),
        ("options.sweeps.show.sweep = 'x'", "options.sweeps.show.sweep: no such key"),
    ],
)
def test_an_option_that_no_command_has_is_refused(write, options, said):
    write(f"[profile.default]\n{options}\n")
    done = in_this_process("list")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_no_such_profile_and_no_such_file_are_wrong_usage(write, tmp_path):
    write("[profile.a]\n[profile.b]\n")
    none = in_this_process("--profile", "c", "list")
    assert (none.returncode, "there is no [profile.c], only: a, b" in none.stderr) == (2, True)
    other = in_this_process("--config", tmp_path / "other.toml", "list")
    assert (other.returncode, "there is no file" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("key", "mode", "refused"),
    [
        ("token = 'atmc_x'", 0o640, True),
        ("token = 'atmc_x'", 0o604, True),
        ("token_command = 'echo x'", 0o664, True),
        ("token_command = 'echo x'", 0o644, False),
        ("token_env = 'X'", 0o644, False),
    ],
)
def test_others_may_not_read_a_token_nor_choose_what_runs(write, key, mode, refused):
    path = write(f"[profile.a]\n{key}\n", mode)
    if not refused:
        assert list(read_profiles(path)) == ["a"]
        return
    with pytest.raises(WrongProfile, match=f"others may .* the file: chmod 600 {path}") as error:
        read_profiles(path)
    assert "atmc_x" not in str(error.value)


def test_its_authority_is_trusted(write, scripted, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "team-ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    scripted.wrap(context)
    url = scripted.url.replace("http:", "https:")
    write(f'[profile.team]\nserver = "{url}"\nca = "team-ca.pem"\n')
    shown(scripted, "--profile", "team")
    assert in_this_process("--server", url, "list").returncode == 3
    shown(scripted, "--server", url, "--ca", tmp_path / "team-ca.pem")
