"""What would keep a run from being done again is found, and what would not is left in peace."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.reproduce.lint import lint
from engine.reproduce.linting import dependencies, randomness
from engine.reproduce.linting.finding import Finding
from tests.reproduce.repository import Repository

ROOT = Path(__file__).parents[2]
HEAD = """
import glob, os, random, time, datetime as dt
from datetime import datetime
from pathlib import Path
import numpy as np
import pandas as pd
import sklearn.ensemble, torch, torch.nn as nn
from numpy.random import default_rng
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier as Forest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import KFold, train_test_split
from sklearn.svm import SVC
from torch.utils.data import DataLoader
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project without a finding: its dependencies are locked."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2"]\n')
    (folder / "uv.lock").write_text("version = 1\n")
    return folder


def write(project: Path, name: str, text: str) -> None:
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text(textwrap.dedent(text))


def found(project: Path, code: str, name: str = "train.py") -> list[Finding]:
    """The findings of one file of code, after the usual imports, in a project that trains."""
    write(project, name, HEAD + textwrap.dedent(code) + "\nmodel.fit(rows)\n")
    return [one for one in lint(project) if one.path == name]


@pytest.mark.parametrize("line", [
    "rng = np.random.default_rng()", "rng = default_rng(None)", "rng = np.random.RandomState()",
    "rng = np.random.Generator(np.random.PCG64())", "x = np.random.rand(3)", "np.random.shuffle(rows)",
    "np.random.seed()", "x = random.random()", "random.shuffle(rows)", "r = random.Random()",
    "r = random.SystemRandom()", "m = Forest()", "m = sklearn.ensemble.RandomForestClassifier(max_depth=5)",
    "m = Forest(random_state=None)", "a, b = train_test_split(rows)", "m = HistGradientBoostingClassifier()",
    "f = KFold(5, shuffle=True)", "m = SVC(probability=True)", "m = LogisticRegression(solver='saga')",
    "m = SGDClassifier()", "s = frame.sample(frac=0.1)", "t = torch.randn(3)", "layer = nn.Linear(3, 1)",
    "batches = DataLoader(rows, shuffle=True)",
])
def test_a_draw_without_a_seed_is_found_at_its_line(project: Path, line: str) -> None:
    one, = found(project, line)
    assert one.rule == "randomness" and one.where == "train.py:14" and one.why and one.hint


@pytest.mark.parametrize("code", [
    "rng = np.random.default_rng(7); x = rng.random(); rng.shuffle(rows)", "rng = default_rng(seed)",
    "np.random.seed(7); x = np.random.rand(3); m = Forest(); a, b = train_test_split(rows)",
    "random.seed(SEED); random.shuffle(rows)", "r = random.Random(7); r.random()",
    "m = Forest(random_state=7)",
    "m = Forest(**params)", "a, b = train_test_split(rows, random_state=7)",
    "a, b = train_test_split(rows, shuffle=False)", "f = KFold(5)", "m = SVC()", "m = LogisticRegression()",
    "m = HistGradientBoostingClassifier(early_stopping=False)", "s = frame.sample(frac=0.1, random_state=7)",
    "torch.manual_seed(7); t = torch.randn(3); layer = nn.Linear(3, 1)", "s = rng.sample(rows, 3)",
    "batches = DataLoader(rows, shuffle=True, generator=g)", "batches = DataLoader(rows)",
    "m = sklearn.ensemble.BaggingClassifier(Forest(), random_state=7)", "class Forest: pass\nrandom = 3",
    "state = np.random.get_state()",
])
def test_what_is_seeded_or_draws_nothing_is_left_in_peace(project: Path, code: str) -> None:
    assert found(project, code) == []


def test_a_seed_set_by_the_script_reaches_the_modules_it_imports_and_no_others(project: Path) -> None:
    write(project, "main.py", "import numpy as np\nimport parts.model\nnp.random.seed(7)\n")
    write(project, "parts/__init__.py", "")
    write(project, "parts/model.py", "from . import noise\nfrom sklearn.cluster import KMeans\nKMeans()\n")
    write(project, "parts/noise.py", "import numpy as np\nnp.random.rand()\n")
    write(project, "other.py", "import numpy as np\nnp.random.rand()\n")
    assert [one.where for one in lint(project)] == ["other.py:2"]


def test_many_draws_from_one_generator_are_one_finding(project: Path) -> None:
    one, = found(project, "np.random.rand()\nnp.random.rand()\nnp.random.shuffle(rows)")
    assert (one.line, one.more) == (14, 2) and "(and 2 more in this file)" in str(one)


@pytest.mark.parametrize("path", [
    "/home/me/data.csv", "/data/flights", "~/flights/x.csv", r"C:\\Users\\me\\x.csv", "/tmp/x.npy",
    "file:///mnt/share/x", "/opt/models/x"])
def test_a_path_of_somebodys_machine_is_found(project: Path, path: str) -> None:
    one, = found(project, f"where = '{path}'\nother = f'{{x}}/y'")
    assert one.rule == "absolute-path" and one.line == 14


@pytest.mark.parametrize("code", [
    "url = '/api/v1/predict'", "ratio = 'a/b'", "x = open('/proc/meminfo')", "x = '/opt/ml/input/data'",
    '"""Reads /home/me/data.csv."""', "ok = name.startswith('/home/')", "x = '/'", "x = 'home/me/x'",
    "x = '/dev/null'", "x = f'{root}/home/me/x'"])
def test_a_route_a_system_file_and_a_docstring_are_no_paths(project: Path, code: str) -> None:
    assert found(project, code) == []


def test_settings_files_are_read_for_paths_too(project: Path) -> None:
    write(project, "params.yaml", "# /home/me/old\ndata: /home/me/data.csv\nroute: /home\n"
                                  "scratch: /scratch/x  # opsdeck: reproducible: only a cache\n")
    assert [one.where for one in lint(project)] == ["params.yaml:2"]


@pytest.mark.parametrize("line", [
    "x = pd.read_csv('data/flights.csv')", "x = pd.read_parquet('s3://bucket/flights.parquet')",
    "x = pd.read_csv(f's3://bucket/{day}.csv')", "x = np.load('features.npy')",
    "x = pd.read_csv('https://example.org/flights.csv')", "x = torch.load('weights.pt')"])
def test_data_without_a_version_is_found(project: Path, line: str) -> None:
    one, = found(project, line)
    assert one.rule == "unversioned-data" and one.line == 14


@pytest.mark.parametrize("code", [
    "x = pd.read_csv(path)", "x = pd.read_csv(Path(inputs) / 'flights.csv')",
    "x = pd.read_parquet('s3://bucket/flights.parquet?versionId=abc')",
    "x.to_csv('step.csv'); y = pd.read_csv('step.csv')",
    "import hashlib\nx = pd.read_csv('a.csv'); assert hashlib.sha256(b).hexdigest() == KNOWN"])
def test_data_that_is_handed_in_checked_or_made_here_is_left_in_peace(project: Path, code: str) -> None:
    assert found(project, code) == []


def test_data_that_git_dvc_or_the_pipeline_versions_is_left_in_peace(project: Path) -> None:
    repository = Repository(project)
    for name in ("tracked.csv", "data/tracked.csv"):
        repository.write(name, "x\n")
    repository.write("by_dvc.csv.dvc", "outs: []\n")
    repository.write("opsdeck.pipeline.yaml", "data:\n  flights: {path: declared.csv}\n")
    repository.commit()
    repository.write("loose.csv", "x\n")
    names = ("tracked.csv", "data/tracked.csv", "./tracked.csv", "by_dvc.csv", "declared.csv", "loose.csv")
    reads = "".join(f"pd.read_csv('{name}')\n" for name in names)
    one, = found(project, reads)
    assert "loose.csv" in one.text


@pytest.mark.parametrize(("line", "rule"), [
    ("from sklearn.datasets import fetch_openml; x = fetch_openml('mnist')", "unversioned-data"),
    ("from datasets import load_dataset; x = load_dataset('imdb')", "unversioned-data"),
    ("from transformers import AutoModel; x = AutoModel.from_pretrained('bert')", "unversioned-data"),
    ("import requests; x = requests.get('https://example.org/x.csv')", "unversioned-data")])
def test_what_a_hub_or_a_page_gives_today_is_found(project: Path, line: str, rule: str) -> None:
    one, = found(project, line)
    assert one.rule == rule


@pytest.mark.parametrize("line", [
    "from sklearn.datasets import fetch_openml; x = fetch_openml('mnist', version=1)",
    "from sklearn.datasets import fetch_openml; x = fetch_openml(data_id=554)",
    "from datasets import load_dataset; x = load_dataset('imdb', revision=COMMIT)",
    "import requests; x = requests.get('https://example.org/api/health')"])
def test_what_names_its_version_or_is_no_data_is_left_in_peace(project: Path, line: str) -> None:
    assert found(project, line) == []


@pytest.mark.parametrize("code", [
    "rows['age'] = time.time() - rows.born + 1\nx = time.time()\nuse(x)", "cut = datetime.now()",
    "today = dt.date.today()", "now = pd.Timestamp.now()"])
def test_a_clock_in_code_that_trains_is_found(project: Path, code: str) -> None:
    assert {one.rule for one in found(project, code)} == {"clock"}


@pytest.mark.parametrize("code", [
    "begun = time.time(); work(); print(f'took {time.time() - begun:.1f} s')", "begun = time.perf_counter()",
    "print(datetime.now())", "begun = datetime.now(); took = datetime.now() - begun",
    "x = datetime.fromtimestamp(5)", "moment = time.gmtime(7)", "self.begun = time.time()",
    "def f():\n    x = time.time()\n    return time.time() - x\ndef g(x):\n    return x"])
def test_measuring_and_telling_the_time_is_left_in_peace(project: Path, code: str) -> None:
    assert found(project, code) == []


def test_a_clock_in_code_that_trains_nothing_is_left_in_peace(project: Path) -> None:
    write(project, "server.py", "import time, numpy\nstarted = time.time()\nserve(started)\n")
    assert lint(project) == []


@pytest.mark.parametrize("line", [
    "for f in os.listdir('x'): use(f)", "files = glob.glob('*.csv')\nuse(files)",
    "rows = [read(f) for f in Path('x').iterdir()]", "part = hash(name) % 10"])
def test_an_order_that_the_disk_or_the_hash_seed_decides_is_found(project: Path, line: str) -> None:
    assert {one.rule for one in found(project, line)} == {"order"}


@pytest.mark.parametrize("code", [
    "files = sorted(glob.glob('*.csv'))", "files = os.listdir('x')\nfiles.sort()", "n = len(os.listdir('x'))",
    "names = {f.stem for f in Path('x').iterdir()}", "files = glob.glob('x')\nfor f in sorted(files): pass",
    "class A:\n    def __hash__(self): return hash(self.x)"])
def test_an_order_that_is_put_right_or_does_not_matter_is_left_in_peace(project: Path, code: str) -> None:
    assert found(project, code) == []


@pytest.mark.parametrize("code", [
    "x = np.random.rand()  # opsdeck: reproducible", "x = np.random.rand()  # opsdeck: reproducible: a demo",
    "# opsdeck: reproducible: only jitter for the plot\nx = np.random.rand()",
    "# opsdeck: reproducible\n# it is only a plot\nx = np.random.rand()",
    "x = use(\n    np.random.rand(),  # opsdeck: reproducible\n)",
    "# opsdeck: reproducible\nx = use(\n    np.random.rand(),\n)"])
def test_a_comment_excuses_its_statement(project: Path, code: str) -> None:
    assert found(project, code) == []


@pytest.mark.parametrize("code", [
    "# opsdeck: reproducible\n\nx = np.random.rand()", "y = 1  # opsdeck: reproducible\nx = np.random.rand()",
    "x = np.random.rand('# opsdeck: reproducible')",
    "def f():\n    x = np.random.rand()\n    return x  # opsdeck: reproducible",
    "# opsdeck: reproducible\ndef f():\n    x = np.random.rand()"])
def test_a_comment_elsewhere_or_in_a_text_excuses_nothing(project: Path, code: str) -> None:
    assert len(found(project, code)) == 1


REQUIREMENTS = """\
# numpy
numpy
pandas>=2,<3   # loose
scipy==1.*
git+https://example.org/a.git@main
torch
    # opsdeck: reproducible: not on this line
polars  # opsdeck: reproducible: only plots
numba==0.60.0 ; python_version < "3.13"
requests[socks]==2.32.0
git+https://example.org/b.git@0123456789012345678901234567890123456789
httpx==0.28.1 \\
    --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000
-r other.txt
--index-url https://example.org/simple
-e .
"""


def test_each_loose_requirement_is_a_finding_of_its_line(tmp_path: Path) -> None:
    write(tmp_path, "requirements-train.txt", REQUIREMENTS)
    assert [one.line for one in lint(tmp_path)] == [2, 3, 4, 5, 6]


def test_a_lock_beside_them_settles_loose_requirements(tmp_path: Path) -> None:
    write(tmp_path, "requirements.txt", REQUIREMENTS)
    write(tmp_path, "uv.lock", "")
    assert lint(tmp_path) == []


@pytest.mark.parametrize(("text", "line"), [
    ('[project]\nname = "x"\ndependencies = ["numpy>=2", "scipy==1.0"]\n', 3),
    ('[tool.poetry.dependencies]\npython = "^3.11"\nnumpy = "^2.0"\n', 1)])
def test_ranges_without_a_lock_are_one_finding(tmp_path: Path, text: str, line: int) -> None:
    write(tmp_path, "pyproject.toml", text)
    one, = lint(tmp_path)
    assert (one.rule, one.line) == ("dependency", line) and "numpy" in one.text and "scipy" not in one.text
    write(tmp_path, "poetry.lock", "")
    assert lint(tmp_path) == []


def test_a_lock_at_the_repositorys_root_is_that_of_a_project_below(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "mono")
    repository.commit(uv__lock="", pyproject__toml="[project]\n")
    repository.write("models/flights/pyproject.toml", '[project]\ndependencies = ["numpy"]\n')
    assert lint(tmp_path / "mono" / "models" / "flights") == []


def test_a_conda_environment_is_read_line_by_line(tmp_path: Path) -> None:
    write(tmp_path, "environment.yml", """\
        channels:
          - conda-forge
        dependencies:
          - python=3.11
          - numpy
          - scipy>=1
          - pandas=2.2.3
          - pip
          - pip:
            - torch
            - httpx==0.28.1
        """)
    assert [one.line for one in lint(tmp_path)] == [5, 6, 10]


def test_a_base_image_needs_its_digest(tmp_path: Path) -> None:
    digest = "@sha256:" + "0" * 64
    write(tmp_path, "Dockerfile", f"FROM python:3.11 AS base\nFROM python:3.11{digest} AS other\nFROM base\n"
                                  "FROM scratch\nFROM --platform=linux/amd64 debian\nRUN echo FROM x\n")
    assert [one.line for one in lint(tmp_path)] == [1, 5]


def test_code_without_any_word_of_its_packages_is_a_finding(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "import numpy\n")
    one, = lint(tmp_path)
    assert one.rule == "dependency" and "nothing says which packages" in one.text


def test_what_is_no_python_or_toml_is_said_and_the_rest_is_read(project: Path) -> None:
    write(project, "broken.py", "def f(:\n")
    write(project, "nul.py", "x = 1\0\n")
    write(project, "other/pyproject.toml", "[project\n")
    write(project, "fine.py", "import numpy\nnumpy.random.rand()\n")
    assert [(one.path, one.rule) for one in lint(project)] == [
        ("broken.py", "unreadable"), ("fine.py", "randomness"), ("nul.py", "unreadable"),
        ("other/pyproject.toml", "unreadable")]


def test_tests_environments_and_hidden_folders_are_left_out(project: Path) -> None:
    for name in ("tests/x.py", "test_x.py", ".venv/x.py", ".hidden/x.py", "venv/x.py", "mine/lib/x.py",
                 "__pycache__/x.py"):
        write(project, name, "import numpy\nnumpy.random.rand()\n")
    write(project, "mine/pyvenv.cfg", "")
    assert lint(project) == []


def test_a_project_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such project"):
        lint(tmp_path / "none")


def test_every_finding_says_where_why_and_what_to_do(project: Path) -> None:
    one, = found(project, "x = np.random.rand()")
    assert str(one).splitlines() == [
        "train.py:14: randomness: np.random.rand draws from NumPy's global generator, which nothing seeds",
        "  Each run draws other numbers, so a second training gives another model.",
        "  Before it: rng = numpy.random.default_rng(SEED), and draw from rng."]


def test_everything_of_scikit_learn_that_takes_a_random_state_is_in_a_table() -> None:
    import sklearn.model_selection
    from sklearn.utils import all_estimators
    from sklearn.utils.discovery import all_functions

    everything = [*all_estimators(), *all_functions(), *vars(sklearn.model_selection).items()]
    taking = {name for name, one in everything if callable(one) and not name.startswith("Base")
              and "random_state" in inspect.signature(one).parameters}
    known = {*randomness.DRAWS, *randomness.UNLESS, *randomness.WHEN, *randomness.SETTLED}
    assert len(taking) > 120 and taking <= known


def test_the_demo_that_is_shipped_has_no_finding() -> None:
    assert lint(ROOT / "engine" / "demo" / "train.py") == []
    assert lint(ROOT / "engine" / "demo") == []


def test_scikit_learns_own_linear_models_are_read_without_a_false_alarm() -> None:
    import sklearn

    read = lint(Path(sklearn.__file__).parent / "linear_model")
    assert [str(one) for one in read if one.rule != "dependency"] == []


@given(st.text(max_size=60))
def test_any_requirement_line_is_judged(line: str) -> None:
    verdict = dependencies.unpinned(line)
    assert verdict is None or verdict


@given(st.from_regex(r"[a-z]{1,8}", fullmatch=True),
       st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){1,3}", fullmatch=True))
def test_one_version_is_pinned_and_a_range_is_not(name: str, version: str) -> None:
    assert dependencies.unpinned(f"{name}=={version}") is None
    assert dependencies.unpinned(f"{name}[extra] == {version}") is None
    for operator in (">=", "~=", "<", "!=", ">"):
        assert dependencies.unpinned(f"{name}{operator}{version}")
    assert dependencies.unpinned(f"{name}=={version},<9")
