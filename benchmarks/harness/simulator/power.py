"""What a power loss leaves: entries and contents that were forced to the disk, and some others.

The tree is mirrored while it is written. A folder keeps its entries as of its last fsync and the
changes since; a file keeps its content as of its last fsync. Three disks lose differently:

ordered   one journal for all entries, as in ext4 and XFS: a prefix of all changes survives, and any
          fsync commits the changes before it
prefix    each folder is its own: a prefix of its changes survives, forced by its own fsync only
subset    POSIX at its strictest: any changes of a folder survive, in order for each name

What a file got since its last fsync survives whole, in part, or as zeros.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

MODES = ("ordered", "prefix", "subset")


@dataclass(eq=False)
class Node:
    """A file or a folder, whatever its names."""

    is_folder: bool
    kept: bytes | None = None  # of a file: its content at its last fsync
    entries: dict[str, Node] = field(default_factory=dict)
    saved: dict[str, Node] = field(default_factory=dict)  # at its last fsync
    pending: list[tuple[int, dict[str, Node | None]]] = field(default_factory=list)  # since then


class PowerModel:
    """The tree below `top`, with what of it is durable. Names are relative to `root` in it."""

    def __init__(self, top: Path, root: Path) -> None:
        self._top, self._root = str(top), str(root)
        self._handles: dict[int, Node] = {}
        self._changes = self._committed = 0
        self.tree = self._scan(top)

    def _scan(self, path: Path) -> Node:
        """Mirror what is there; all of it is durable."""
        if not path.is_dir():
            return Node(is_folder=False, kept=path.read_bytes())
        entries = {entry.name: self._scan(entry) for entry in path.iterdir()}
        return Node(is_folder=True, entries=entries, saved=dict(entries))

    def _parts(self, name: str) -> list[str]:
        path = os.path.relpath(os.path.normpath(f"{self._root}/{name}"), self._top)
        return [] if path == "." else path.split("/")

    def _find(self, name: str) -> Node | None:
        node = self.tree
        parts = self._parts(name)
        if parts and parts[0] == "..":
            return None  # above what is mirrored
        for part in parts:
            if part not in node.entries:
                return None
            node = node.entries[part]
        return node

    def _change(self, folder: Node, change: dict[str, Node | None]) -> None:
        self._changes += 1
        folder.pending.append((self._changes, change))
        for name, node in change.items():
            if node is None:
                folder.entries.pop(name, None)
            else:
                folder.entries[name] = node

    def _holder(self, name: str) -> tuple[Node, str]:
        parts = self._parts(name)
        node = self.tree
        for part in parts[:-1]:
            node = node.entries[part]
        return node, parts[-1]

    def created(self, name: str, *, is_folder: bool) -> None:
        """Note a new entry."""
        folder, last = self._holder(name)
        self._change(folder, {last: Node(is_folder)})

    def opened(self, handle: int, name: str) -> None:
        """Note what a handle stands for."""
        node = self._find(name)
        if node is None and self._parts(name)[:1] != [".."]:  # a library made it
            self.created(name, is_folder=Path(f"/proc/self/fd/{handle}").is_dir())
            node = self._find(name)
        if node is not None:
            self._handles[handle] = node

    def closed(self, handle: int) -> None:
        """Forget a handle."""
        self._handles.pop(handle, None)

    def renamed(self, name: str, new_name: str) -> None:
        """Note a rename: one change, or two in folders that differ."""
        folder, last = self._holder(name)
        new_folder, new_last = self._holder(new_name)
        node = folder.entries.get(last) or Node(is_folder=False)
        if folder is new_folder:
            self._change(folder, {last: None, new_last: node})
        else:
            self._change(new_folder, {new_last: node})
            self._change(folder, {last: None})

    def removed(self, name: str) -> None:
        """Note that an entry is gone."""
        folder, last = self._holder(name)
        self._change(folder, {last: None})

    def synced(self, handle: int) -> None:
        """Note that what is open was forced to the disk."""
        node = self._handles.get(handle)
        if node is not None:
            self._save(node, handle)
        self._committed = self._changes

    def _save(self, node: Node, handle: int) -> None:
        if node.is_folder:
            node.saved, node.pending = dict(node.entries), []
        else:
            node.kept = Path(f"/proc/self/fd/{handle}").read_bytes()

    def synced_everything(self) -> None:
        """Note that all that is there was forced to the disk."""
        self.tree = self._scan(Path(self._top))
        self._handles = {
            handle: node for handle in self._handles if (node := self._node_of(handle)) is not None
        }

    def _node_of(self, handle: int) -> Node | None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        return self._find(os.path.relpath(path, self._root))

    def lose(self, mode: str, draw: random.Random) -> None:
        """Cut the power: put on the real disk what survives."""
        top = Path(self._top)
        self._adopt(self.tree, top)
        contents: dict[Node, bytes] = {}
        self._collect(self.tree, top, contents)
        loss = _Loss(mode, draw, draw.randint(self._committed, self._changes), contents)
        shutil.rmtree(top)
        loss.write(self.tree, top)

    def _adopt(self, node: Node, path: Path) -> None:
        """Note what libraries made."""
        for entry in path.iterdir():
            if entry.name not in node.entries:
                self._change(node, {entry.name: Node(entry.is_dir())})
            if entry.is_dir():
                self._adopt(node.entries[entry.name], entry)

    def _collect(self, node: Node, path: Path, contents: dict[Node, bytes]) -> None:
        """Read what files hold now; those that have no name any more keep what was forced."""
        for name, entry in node.entries.items():
            if entry.is_folder:
                self._collect(entry, path / name, contents)
            elif (path / name).exists():
                contents[entry] = (path / name).read_bytes()


@dataclass
class _Loss:
    """How a disk loses what was not forced to it."""

    mode: str
    draw: random.Random
    cut: int  # changes up to this one are in an ordered journal
    contents: dict[Node, bytes]  # of files, when the power went

    def write(self, node: Node, path: Path) -> None:
        """Write what survives of a folder."""
        path.mkdir()
        for name, entry in self._survivors(node).items():
            if entry.is_folder:
                self.write(entry, path / name)
            else:
                now = self.contents.get(entry, entry.kept or b"")
                (path / name).write_bytes(self._torn(entry.kept or b"", now))

    def _survivors(self, node: Node) -> dict[str, Node]:
        """Return the entries of a folder after the power is back."""
        entries = dict(node.saved)
        upto = self.draw.randint(0, len(node.pending))
        lost: set[str] = set()  # names whose later changes cannot survive
        for index, (number, change) in enumerate(node.pending):
            if self.mode == "ordered":
                survives = number <= self.cut
            elif self.mode == "prefix":
                survives = index < upto
            else:
                survives = not lost & change.keys() and self.draw.random() < 0.6
            if not survives:
                lost |= change.keys()
                continue
            for name, entry in change.items():
                if entry is None:
                    entries.pop(name, None)
                else:
                    entries[name] = entry
        return dict(sorted(entries.items()))

    def _torn(self, kept: bytes, now: bytes) -> bytes:
        """Return what a file holds after the power is back."""
        if kept == now:
            return now
        kind = self.draw.choice(["kept", "now", "part"] + ["zeros"] * (self.mode != "ordered"))
        if kind in {"kept", "now"}:
            return kept if kind == "kept" else now
        pairs = enumerate(zip(kept, now, strict=False))
        common = next((index for index, (a, b) in pairs if a != b), min(len(kept), len(now)))
        part = now[: self.draw.randint(common, len(now))]
        return part if kind == "part" else part + bytes(len(now) - len(part))
