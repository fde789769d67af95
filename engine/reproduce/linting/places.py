"""Absolute paths, and data without a digest or version. Pure, but for what the project is told to hold.

Data of a project is versioned when Git tracks it, when `opsdeck.pipeline.yaml` names it (the pipeline then
records its digest), when a `.dvc` file stands beside it, or when the file that reads it checks a digest.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from engine.reproduce.linting.finding import Finding
from engine.reproduce.linting.source import Call, Source

# Places that differ between machines. /proc, /dev, /etc and /usr are the system's, and the same on each;
# /opt/ml is where SageMaker puts data into every container.
ABSOLUTE = re.compile(
    r"(?:file://)?(?:/(?:home|Users|mnt|media|data|datasets|srv|var|tmp|root|scratch|storage|nfs|gpfs|"
    r"lustre|dbfs|Volumes|content|kaggle|workspace)/[\w.@{}$ -][^\n]*|"
    r"/opt/(?!ml(?:/|$))[\w.-][^\n]*|~/[\w.][^\n]*|"
    r"[A-Za-z]:\\{1,2}[\w. -]+\\[^\n]*)")
TEXT = re.compile(r"""(?:^|[\s"'=:\[,(])(?P<path>(?:/(?:home|Users|mnt|media|scratch|storage|nfs|dbfs|"""
                  r"""Volumes|workspace|srv|tmp)/|~/|[A-Za-z]:\\)[^\s"',\])#]*)""")
READS = frozenset({
    "numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile", "numpy.memmap", "pandas.read_csv",
    "pandas.read_parquet", "pandas.read_json", "pandas.read_excel", "pandas.read_feather",
    "pandas.read_table", "pandas.read_hdf", "pandas.read_orc", "pandas.read_pickle", "pandas.read_fwf",
    "pandas.read_stata", "pandas.read_sas", "polars.read_csv", "polars.read_parquet", "polars.read_json",
    "polars.read_ndjson", "polars.read_ipc", "polars.read_excel", "polars.scan_csv", "polars.scan_parquet",
    "polars.scan_ndjson", "polars.scan_ipc", "pyarrow.parquet.read_table", "pyarrow.parquet.ParquetFile",
    "pyarrow.parquet.ParquetDataset", "pyarrow.csv.read_csv", "pyarrow.dataset.dataset",
    "pyarrow.feather.read_table", "pyarrow.json.read_json", "dask.dataframe.read_csv",
    "dask.dataframe.read_parquet", "xgboost.DMatrix", "lightgbm.Dataset",
    "sklearn.datasets.load_svmlight_file", "joblib.load", "torch.load", "tensorflow.data.TFRecordDataset",
    "tensorflow.keras.utils.image_dataset_from_directory",
})
FETCHES = frozenset({"urllib.request.urlretrieve", "urllib.request.urlopen", "requests.get", "httpx.get",
                     "tensorflow.keras.utils.get_file", "keras.utils.get_file", "wget.download",
                     "torch.hub.load_state_dict_from_url", "torchvision.datasets.utils.download_url"})
# By name: the keyword that names a version, which without it is whatever is newest.
HUBS = {"datasets.load_dataset": "revision", "huggingface_hub.hf_hub_download": "revision",
        "huggingface_hub.snapshot_download": "revision", "sklearn.datasets.fetch_openml": "version",
        "kagglehub.dataset_download": "version"}
CHECKED = re.compile(r"sha256|sha512|sha1|md5|blake2|known_hash|file_hash|check_hash|checksum", re.IGNORECASE)
DATA_NAME = re.compile(
    r"\.(?:csv|tsv|parquet|feather|arrow|orc|jsonl?|ndjson|npy|npz|h5|hdf5|xlsx?|zip|gz|tar|tgz|zst|pkl|pt|pth|"
    r"onnx|arff|svm|txt|data|db|sqlite)(?:[?#].*)?$", re.IGNORECASE)
REMOTE = re.compile(r"(?:s3a?|gs|gcs|abfss?|wasbs?|az|https?|ftp|hdfs)://", re.IGNORECASE)
WHY_PATH = "Another machine has another thing there, or nothing, so the run cannot be done again elsewhere."
WHY_DATA = "What it holds can change under the same name, and nothing in the run would tell."


@dataclass(frozen=True)
class Held:
    """What the project holds: paths that Git tracks, the text of opsdeck.pipeline.yaml, DVC's `.dvc` paths,
    and names that the project's own code writes."""

    tracked: frozenset[str] = frozenset()
    declared: str = ""
    dvc: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()

    def versions(self, path: str, reader: str) -> bool:
        """Whether `path`, relative to the project or to the file `reader`, has a version."""
        plain = str(PurePosixPath(path))
        beside = str(PurePosixPath(reader).parent / plain)
        return any(one in self.tracked or f"{one}.dvc" in self.dvc
                   or any(name.startswith(f"{one}/") for name in self.tracked)
                   for one in (plain, beside)) or plain in self.declared or path in self.written


def absolute(source: Source) -> Iterator[tuple[ast.AST, Finding]]:
    """Every text constant in the code that is an absolute path of somebody's machine."""
    told = set(source.documentation())
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node in told:
            continue
        parent = source.parents.get(node)
        if isinstance(parent, ast.JoinedStr) and (parent.values[0] is not node or parent in told):
            continue
        if ABSOLUTE.fullmatch(node.value) and not _in_pattern(source, node):
            yield node, Finding("absolute-path", source.path, node.lineno,
                                f"{_short(node.value)} is an absolute path", WHY_PATH,
                                "Take it from the settings, or make it relative to the project.")


def absolute_in_text(path: str, text: str) -> Iterator[Finding]:
    """The same in a settings file (YAML, TOML, INI); a line with the excuse is left out by the caller."""
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("#")[0] if line.lstrip().startswith("#") else line
        found = TEXT.search(code)
        if found:
            yield Finding("absolute-path", path, number, f"{_short(found['path'])} is an absolute path",
                          WHY_PATH, "Make it relative to the project, or take it from the environment.")


def unversioned(source: Source, held: Held) -> Iterator[tuple[ast.AST, Finding]]:
    """Every reading of data whose name is written in the code and says no version."""
    checks = any(CHECKED.search(source.lines[at - 1]) for at in _code_lines(source))
    for call in source.calls:
        if not source.imported(call.node.func):
            continue
        if call.name in HUBS and not call.spread:
            found = _hub(source, call)
        elif call.last == "from_pretrained" and "transformers" in call.name.partition(".")[0]:
            found = _pretrained(source, call)
        elif call.name in READS:
            found = _read(source, call, held, checks)
        elif call.name in FETCHES:
            found = _fetched(source, call, checks)
        else:
            continue
        if found is not None:
            yield call.node, found


def writes(source: Source) -> frozenset[str]:
    """Every text handed to something that writes: `to_csv`, `save`, `dump`, `write_table` and their like."""
    return frozenset(
        one.value for node in ast.walk(source.tree) if isinstance(node, ast.Call)
        and re.match(r"to_[a-z]+$|save|dump|write|sink_", _attribute(node.func))
        for one in [*node.args, *(each.value for each in node.keywords)]
        if isinstance(one, ast.Constant) and isinstance(one.value, str))


def _read(source: Source, call: Call, held: Held, checks: bool) -> Finding | None:
    name = _text(call.node.args[0] if call.node.args else None) or _text(
        call.given("path") or call.given("filepath_or_buffer") or call.given("source"))
    if not name or checks:
        return None
    if REMOTE.match(name):
        return None if re.search(r"versionId=|[?&]generation=|/[0-9a-f]{40}/", name) else _finding(
            source, call, f"{_short(name)} is read without a version or digest",
            "Name a version (on S3: ?versionId=…), or name it under data: in opsdeck.pipeline.yaml.")
    if ABSOLUTE.fullmatch(name) or name.startswith("/") or held.versions(name, source.path):
        return None  # an absolute path is a finding already
    return _finding(source, call, f"{_short(name)} is read, and nothing records its version",
                    "Name it under data: in opsdeck.pipeline.yaml, or have Git or DVC track it.")


def _fetched(source: Source, call: Call, checks: bool) -> Finding | None:
    name = _text(call.node.args[0] if call.node.args else call.given("url") or call.given("origin"))
    if not name or checks or not REMOTE.match(name) or not DATA_NAME.search(name):
        return None
    return _finding(source, call, f"{_short(name)} is fetched, and no digest is checked",
                    "Compare its SHA-256 with one that is written down.")


def _hub(source: Source, call: Call) -> Finding | None:
    keyword = HUBS[call.name]
    if call.name.endswith("fetch_openml") and call.given("data_id") is not None:
        return None
    first = _text(call.node.args[0] if call.node.args else None)
    version = call.given(keyword)
    moving = isinstance(version, ast.Constant) and version.value in ("active", "main", "master", "latest")
    positional = call.name.endswith("fetch_openml") and len(call.node.args) > 1
    if (version is not None and not moving) or positional or (
            first and (first.startswith((".", "/")) or first in ("csv", "json", "parquet", "text"))):
        return None
    return _finding(source, call, f"{call.last} takes whatever version is newest",
                    f"Name one: {keyword}={'1' if keyword == 'version' else 'COMMIT'}.")


def _pretrained(source: Source, call: Call) -> Finding | None:
    first = _text(call.node.args[0] if call.node.args else None)
    if not first or first.startswith((".", "/")) or call.given("revision") is not None or call.spread:
        return None
    return _finding(source, call, f"{_short(first)} is loaded in whatever version is newest",
                    "Name one: revision=COMMIT.")


def _finding(source: Source, call: Call, text: str, hint: str) -> Finding:
    return Finding("unversioned-data", source.path, call.node.lineno, text, WHY_DATA, hint)


def _text(node: ast.expr | None) -> str:
    """A text constant, or what an f-string begins with, its values as {}."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [one.value if isinstance(one, ast.Constant) else "{}" for one in node.values]
        text = "".join(str(one) for one in parts)
        return text if REMOTE.match(text) else ""
    return ""


def _attribute(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _in_pattern(source: Source, node: ast.AST) -> bool:
    """Whether the text is what others are compared with (`startswith`, `==`, a regular expression)."""
    parent = source.parents.get(node)
    if isinstance(parent, ast.Tuple):
        parent = source.parents.get(parent)
    if isinstance(parent, ast.Compare):
        return True
    return isinstance(parent, ast.Call) and _attribute(parent.func) in (
        "startswith", "endswith", "compile", "match", "search", "fullmatch", "removeprefix", "replace", "sub")


def _code_lines(source: Source) -> list[int]:
    return [at for at in range(1, len(source.lines) + 1) if at not in source.comments]


def _short(text: str) -> str:
    return text if len(text) <= 70 else text[:69] + "…"
