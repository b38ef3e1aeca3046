"""A dataset's folder on the Hugging Face Hub: what would be sent where, and sending it.

The token is the one that huggingface_hub finds; it is neither read here nor shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steelyard.errors import EnvironmentFault, UsageError, escape
from steelyard.export.writer import file_names

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_TOKEN = re.compile(r"\bhf_\w+", re.ASCII)
WRITTEN = ("README.md", "export.json")  # next to the data


@dataclass(frozen=True, slots=True)
class Push:
    """What goes to the Hub: the files of a dataset, into a private repository."""

    repository: str
    files: dict[str, int | None]  # name -> bytes; None: not written yet
    pushed: str | None = None  # address of the commit; None: nothing was sent
    reason: str = "a dry run"  # why nothing was sent
    estimated: bool = False  # whether sizes are estimates, by the first rows

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "private": True, "reason": None if self.pushed else self.reason}


def check_name(name: str, *, dry_run: bool) -> None:
    """Check the name of a repository, and that it can be sent to, before anything is written.

    Raises:
        UsageError: the Hub has no such names.
        EnvironmentFault: huggingface_hub is not installed.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise UsageError(
            f"--push-to-hub is {escape(name)!r}",
            remedy="give the name of a dataset on the Hub, such as my-group/preferences",
        )
    if not dry_run and find_spec("huggingface_hub") is None:
        raise EnvironmentFault(
            "datasets are sent by huggingface_hub, which is not installed",
            effect="nothing was written",
            remedy="pip install 'steelyard[hf]', or leave out --push-to-hub",
        )


def plan_push(name: str, content: Mapping[str, Any], folder: Path | None) -> Push:
    """Return what would be sent.

    Args:
        name: of the repository.
        content: what `export_dataset` returned.
        folder: the dataset; None: it was not written.
    """
    per_file = content["options"]["rows_per_file"]
    data = {
        file: min(per_file, rows - number * per_file)
        for split, rows in content["rows"].items()
        for number, file in enumerate(file_names(split, rows, per_file))
    }
    if folder is not None:
        return Push(name, {file: (folder / file).stat().st_size for file in [*WRITTEN, *data]})
    sizes = {}
    if data:
        fixed, each = content["estimate"]["file_bytes"], content["estimate"]["row_bytes"]
        sizes = {file: round(fixed + rows * each) for file, rows in data.items()}
    return Push(name, {**dict.fromkeys(WRITTEN), **sizes}, estimated=True)


def push(plan: Push, folder: Path) -> Push:
    """Send a dataset to the Hub, in one commit.

    Nothing is sent to a repository that is there and not private.

    Returns:
        The plan with the address of the commit, or with the reason why nothing was sent.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        name = api.create_repo(
            plan.repository, repo_type="dataset", private=True, exist_ok=True
        ).repo_id
        if not api.dataset_info(name).private:
            reason = (
                "the repository is there and is not private; to publish the dataset all the same:"
                f" hf upload {name} {escape(folder, 400)} . --repo-type dataset"
            )
            return Push(plan.repository, plan.files, reason=reason)
        commit = api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=list(plan.files),
            commit_message="Dataset written by Steelyard",
        )
    except Exception as error:
        words = _TOKEN.sub("hf_...", escape(error, 300))
        return Push(plan.repository, plan.files, reason=f"{type(error).__name__}: {words}")
    return Push(plan.repository, plan.files, pushed=str(commit.commit_url))
