"""Hub ids: what is asked of the hub's client, and what its errors become. Nothing here uses the network."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import errors
from npuc.frontends.checkpoint import open_checkpoint
from npuc.ir.errors import UserError
from npuc.tools import irc

REQUEST = httpx2.Request("GET", "https://hub.invalid/api/models/org/model")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def answered(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The hub's client gets an error for whatever it asks."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", refuse)


def refused(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind("a\nlong text. And more.", response=httpx2.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (
            httpx2.ConnectError("[Errno -2] Name or service not known"),
            "no such directory, and the hub could not be asked: [Errno -2] Name or service not known",
            "check the path, or for a hub id the network",
        ),
        (
            refused(errors.HfHubHTTPError, 503),
            "no such directory, and the hub could not be asked: a long text",
            "check the path, or for a hub id the network",
        ),
        (
            refused(errors.RepositoryNotFoundError, 401),
            "no such directory, and the hub shows no such model",
            "check the name; a private model needs HF_TOKEN",
        ),
        (
            refused(errors.GatedRepoError, 403),
            "the hub gives this model only to those who have been granted access",
            "ask for access on its page, then set HF_TOKEN or log in with hf auth login",
        ),
        (refused(errors.RevisionNotFoundError, 404), "the model has no revision v9", "check --revision"),
    ],
)
def test_what_the_hub_answers(
    error: Exception, message: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, error)
    with pytest.raises(UserError) as caught:
        open_checkpoint("org/model", revision="v9")
    found = caught.value
    assert (found.kind, found.where, found.message, found.remedy) == (
        "hub-error",
        "org/model",
        message,
        remedy,
    )


def test_no_hub_id(cache: Path) -> None:
    with pytest.raises(UserError, match="no such directory, and no hub id") as caught:
        open_checkpoint("two words")
    assert caught.value.kind == "hub-error"


@pytest.mark.parametrize("offline", [False, True])
def test_nothing_is_downloaded_offline(offline: bool, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF_HUB_OFFLINE, which the client reads when it is imported, or with --local-files-only."""
    answered(monkeypatch, errors.OfflineModeIsEnabled("offline") if offline else AssertionError("was asked"))
    with pytest.raises(UserError, match="no such directory, and no download of it in ") as caught:
        open_checkpoint("nobody/nothing", local_files_only=not offline)
    assert str(cache) in caught.value.message


def test_the_client_keeps_to_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client itself refuses to connect: no part of it is replaced here."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no such directory, and no download of it"):
        open_checkpoint("nobody/nothing")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(UserError, match=r"the download failed: .*No space left on device") as caught:
        open_checkpoint("org/model")
    assert "the space in" in caught.value.remedy


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the client is asked to download; it finds an empty directory."""
    seen: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        seen.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return seen


def test_an_id_is_passed_to_the_hub_client(asked: dict[str, object], tmp_path: Path) -> None:
    assert open_checkpoint("org/model", revision="v1", local_files_only=True).root == tmp_path
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == ("org/model", "v1", True)
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert not any(".bin" in pattern or ".py" in pattern for pattern in patterns)


@pytest.mark.parametrize("command", [["compile"], ["bisect"], ["bisect", "precision"]])
def test_flags_of_the_command_line(
    command: list[str], asked: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command, "org/model", "-t", "rngd", "--revision", "v2", "--local-files-only"]
    if command == ["compile"]:
        words += ["-o", str(tmp_path / "out")]
    if command[1:]:
        words += ["--quantize", "w8a16", "--quality", "cosine=0.9"]
    assert irc.main(words) == 1
    assert (asked["revision"], asked["local_files_only"]) == ("v2", True)
    assert f"irc: error: {tmp_path / 'config.json'}: cannot be read" in capsys.readouterr().err
