"""Which files of a folder are scans, and which of them belong to a split."""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pc_data.errors import DataError
from pc_data.files.cloud_files import COORD, SUFFIXES
from pc_data.readers.folder_schema import Schema, Source


def holds_clouds(root: Path) -> bool:
    """Whether a folder, or one inside it, holds a file of a known type."""
    return next(_walk(root), None) is not None


def _walk(root: Path) -> Iterator[str]:
    """Files of a known type from the root with `/`; links are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        status = os.stat(place)  # noqa: PTH116  # thousands of folders
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = os.path.relpath(place, root).replace(os.sep, "/") + "/"
        for name in sorted(files):
            part = COORD in files and name != COORD and name.endswith(".npy")
            if name.lower().endswith(SUFFIXES) and not (part or name.startswith(".")):
                yield prefix.removeprefix("./") + name


def scan_files(root: Path, schema: Schema) -> list[str]:
    """List the scans of a folder, without the files that hold the ids of others.

    Returns:
        Paths from the root with `/`, in alphabetical order.

    Raises:
        DataError: If there are none, or the schema names a file that is not there or outside.
    """
    files = sorted(_walk(root))
    if schema.scans:
        files = _select("scans", schema.scans, files, schema.file)
    for source in (schema.labels, schema.instances):
        if source.files:
            _require_inside(source, files, schema.file)
            ids = {source.file_of(name) for name in files}
            files = [name for name in files if name not in ids]
    if not files:
        raise DataError(
            f"{root} holds no point clouds ({', '.join(SUFFIXES)}), neither itself nor in a "
            "folder; pass the folder that does"
        )
    return files


def _require_inside(source: Source, files: list[str], schema: Path) -> None:
    for name in files:
        if source.file_of(name).startswith("../"):
            raise DataError(
                f"{schema}: files {source.files!r} of {name} is outside the folder; correct it"
            )


def require_columns(root: Path, files: list[str], schema: Schema) -> None:
    """Refuse .bin files of which nobody says what they hold, before one is opened.

    Raises:
        DataError: Names the first one.
    """
    bare = [name for name in files if name.lower().endswith(".bin")]
    if bare and not schema.columns:
        raise DataError(
            f"{root / bare[0]}: a .bin file does not say what its columns are, and no columns are "
            f"stated ({len(bare)} such files); write columns: [x, y, z, intensity] into "
            f"{schema.file}, or there scans: with patterns of the files to read"
        )


def files_of_split(
    split: str, files: list[str], schema: Schema, on_defect: Callable[[str], None]
) -> list[str]:
    """The files of a split that are in no other.

    Args:
        split: One of those that the schema names.
        files: All scans.
        schema: The schema.
        on_defect: Is told of each file that is in another split too.

    Raises:
        DataError: If a pattern of any split matches no file.
    """
    members = {
        name: _select(f"splits.{name}", _entries(patterns, schema.file), files, schema.file)
        for name, patterns in schema.splits.items()
    }
    elsewhere = {
        name: other for other, names in members.items() if other != split for name in names
    }
    found = []
    for name in members[split]:
        if name in elsewhere:
            on_defect(
                f"{schema.file}: {name} is in both splits.{split} and splits.{elsewhere[name]}; "
                "remove it from one"
            )
        else:
            found.append(name)
    return found


def _entries(patterns: Sequence[str], schema: Path) -> list[str]:
    """Patterns, with lists of files read in."""
    entries: list[str] = []
    for pattern in patterns:
        if not pattern.endswith(".txt"):
            entries.append(pattern.removeprefix("./"))
            continue
        file = schema.parent / pattern
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts or not file.is_file():
            raise DataError(f"{schema}: list {pattern!r} is no file in its folder; correct it")
        text = file.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip().removeprefix("./") for line in text.splitlines()]
        entries += [line for line in lines if line and not line.startswith("#")]
    return entries


def _select(key: str, patterns: Sequence[str], files: list[str], schema: Path) -> list[str]:
    """Files that a pattern or name matches, in their order."""
    present = set(files)
    chosen: set[str] = set()
    for pattern in patterns:
        if re.search(r"[*?\[]", pattern):
            matches = _matcher(key, pattern, schema)
            found = [name for name in files if matches(name)]
        else:
            found = [pattern] if pattern in present else []
        if not found:
            near = difflib.get_close_matches(pattern, files[:10_000], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{schema}: {key} has {pattern!r}, which no file matches{hint}; patterns are paths "
                "from the folder of this file"
            )
        chosen.update(found)
    return [name for name in files if name in chosen]


def _matcher(key: str, pattern: str, schema: Path) -> Callable[[str], object]:
    """Compile a pattern: `*` and `?` stay within a name, `**` is any folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^]/]+\]|.", pattern)
    regex = "".join(
        parts.get(token)
        or (token.replace("[!", "[^") if len(token) > 2 and token[0] == "[" else re.escape(token))
        for token in tokens
    )
    try:
        return re.compile(regex).fullmatch
    except re.error as error:
        raise DataError(f"{schema}: {key} has {pattern!r}: {error}; correct the pattern") from error
