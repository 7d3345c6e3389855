"""Downloads checkpoints from the Hugging Face hub, and explains what goes wrong."""

from __future__ import annotations

from pathlib import Path

from npuc.ir.errors import UserError

_PATTERNS = ["*.json", "*.safetensors", "tokenizer.model", "*.txt", "*.jinja"]


def download(name: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The directory in HF_HOME that holds a hub model's configuration, tokenizer and weights.

    ``HF_HUB_OFFLINE`` counts as ``local_files_only``.

    Raises:
        UserError: ``hub-error``: there is no such model, it is not ours to see, or it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, local_files_only=local_files_only, allow_patterns=_PATTERNS
        )
    except Exception as error:  # one of many hub and network errors, all of them the user's to mend
        message, remedy = _explained(error, revision)
        raise UserError("hub-error", message, where=name, remedy=remedy) from error
    return Path(folder)


def _explained(error: Exception, revision: str | None) -> tuple[str, str]:
    """What went wrong, and what to do. The name was no directory: the user may have meant one."""
    from huggingface_hub import constants, errors

    reason = _first_sentence(error.__cause__ or error)
    match error:
        case errors.HFValidationError():
            return "no such directory, and no hub id", "a hub id is such as org/model"
        case errors.GatedRepoError():
            remedy = "ask for access on its page, then set HF_TOKEN or log in with hf auth login"
            return "the hub gives this model only to those who have been granted access", remedy
        case errors.RepositoryNotFoundError():
            remedy = "check the name; a private model needs HF_TOKEN"
            return "no such directory, and the hub shows no such model", remedy
        case errors.RevisionNotFoundError():
            return f"the model has no revision {revision or 'main'}", "check --revision"
        case errors.IncompleteSnapshotError():
            remedy = "finish the download while online"
            return f"only a part of it was downloaded to {constants.HF_HUB_CACHE}", remedy
        case errors.LocalEntryNotFoundError() if not _was_asked(error):
            remedy = "check the path, or download it first: nothing is, offline or with --local-files-only"
            return f"no such directory, and no download of it in {constants.HF_HUB_CACHE}", remedy
        case errors.LocalEntryNotFoundError():
            remedy = "check the path, or for a hub id the network"
            return f"no such directory, and the hub could not be asked: {reason}", remedy
        case OSError():
            remedy = f"check the network, and the space in {constants.HF_HUB_CACHE}"
            return f"the download failed: {reason}", remedy
        case _:
            return reason, "check the name, the revision, the network, or give a local directory"


def _was_asked(error: Exception) -> bool:
    """Whether the hub was asked at all."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return error.__cause__ is not None and not isinstance(error.__cause__, OfflineModeIsEnabled)


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0][:300] or type(error).__name__
