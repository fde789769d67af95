"""Where a project's file is. Light to import."""

from __future__ import annotations

from pathlib import Path

FILE = "opsdeck.pipeline.yaml"


def file_of(folder: Path) -> Path:
    """The project file of a folder, or the path itself where it is a file's."""
    return folder if folder.name.endswith((".yaml", ".yml")) and not folder.is_dir() else folder / FILE


def is_project(path: Path) -> bool:
    """Whether a path is a project file, or a folder that has one."""
    return path.name == FILE or (path / FILE).is_file()
