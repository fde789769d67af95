"""The typed model of `opsdeck.pipeline.yaml`, version 1. Reading it, with lines, is `reading`. Pure.

Paths are relative to the project's folder and stay inside it. Durations are seconds; see
`engine.fields.seconds` for how they may be written.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from engine.fields import Model, Positive, Text
from engine.pipeline.robustness.behaviour import Behaviour
from engine.pipeline.robustness.perturbations import Perturbation
from engine.pipeline.statistics.gates import Gate

NAME = r"^[a-z0-9][a-z0-9-]*$"
Name = Annotated[str, Field(pattern=NAME)]


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError(f"{path} leaves the project's folder; write a path inside it")
    return path


Inside = Annotated[str, Field(min_length=1), AfterValidator(_inside), WithJsonSchema(
    {"type": "string", "minLength": 1, "description": "A path inside the project's folder."})]
Task = Literal["binary", "multiclass", "regression", "ranking"]
Where = Literal["local", "sagemaker", "ray"]
Pinned = Annotated[str, Field(pattern=r"^\S+@sha256:[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
CODE = ["**/*.py"]


class Entry(Model):
    """What a stage runs: a command, or a Python function as `module:function`. Exactly one of them.

    It runs in the project's environment and in a copy of the files that `code` lists, and of those that it
    names itself; no other file is there. A command finds OPSDECK_INPUTS and OPSDECK_OUTPUT
    (folders) and OPSDECK_PARAMS (a JSON file); a function gets the three as `inputs: Path, output: Path,
    params: dict`. Files in, files out.
    """

    command: list[Text] = []
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.command) == (self.function is not None):
            raise ValueError("give exactly one of `command` and `function`")
        return self


class Limits(Model):
    """Of a stage's process: address space, processor time, the size of a file, open files."""

    memory_mb: Annotated[int, Field(gt=0)] | None = None
    cpu: Positive | None = None
    file_mb: Annotated[int, Field(gt=0)] | None = None
    timeout: Positive = 6 * 3600.0


class Environment(Model):
    """The environment that stages run in, made from `lock` and kept by its digest.

    `lock` is a requirements file with hashes or a uv.lock. `inherit` takes the engine's own interpreter
    instead, which is for trying things out: nothing then pins what the project imports.
    """

    lock: Inside | None = None
    python: Annotated[str, Field(pattern=r"^3\.\d+(\.\d+)?$")] = "3.11"
    image: Pinned | None = None
    inherit: bool = False

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if (self.lock is None) != self.inherit:
            raise ValueError("give `lock`, or `inherit: true` to use the engine's own packages")
        return self


class Source(Model):
    """One data set: a local file or folder (Parquet or CSV), an object or prefix on S3, or a command that
    makes it from `sources` (it writes `<name>.parquet` or `<name>.csv` into OPSDECK_OUTPUT). It runs in a
    copy of them, or of `code` where there are none."""

    path: Inside | None = None
    uri: Annotated[str, Field(pattern=r"^s3://[^/]+/.+$")] | None = None
    command: list[Text] = []
    sources: list[Inside] = []

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.path is not None, self.uri is not None, bool(self.command)]
        if sum(given) != 1:
            raise ValueError("give exactly one of `path`, `uri` and `command`")
        if self.sources and not self.command:
            raise ValueError("`sources` is for data that a command makes")
        return self


class Window(Model):
    """Train on the newest `last`; with `half_life`, a row that much older than the newest counts half: the
    column `sample_weight` of train.parquet says it."""

    last: Positive | None = None
    half_life: Positive | None = None


class Holdout(Model):
    """The rows that are kept for the evaluation: the newest `last` by the data's time, a random `share`
    (whole groups where the data has `group`), or those where `column` has the value `is`."""

    last: Positive | None = None
    share: Fraction | None = None
    column: Text | None = None
    value: Any = Field(default=None, alias="is")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.last, self.share, self.column].count(None) != 2:
            raise ValueError("give exactly one of `last`, `share` and `column`")
        return self


class Data(Model):
    """What is learned from. `time`: the column of a row's moment. `group`: rows that belong together, such as
    a customer's or a query's. `key`: columns that tell rows apart. `features`: what the model sees; all but
    the columns named here where it is left out."""

    source: Source
    label: Text
    time: Text | None = None
    group: Text | None = None
    key: list[Text] = []
    features: list[Text] = []
    segments: list[Text] = []
    expectations: Inside = "expectations.yaml"
    window: Window = Window()
    holdout: Holdout

    @model_validator(mode="after")
    def _by_time(self) -> Self:
        if self.time is None and (self.holdout.last or self.window.last or self.window.half_life):
            raise ValueError("a holdout or window by time wants `time`, the column of a row's moment")
        return self


class Tests(Model):
    """The project's own tests, by pytest. `args` are added to its command."""

    paths: list[Inside] = ["tests"]
    args: list[str] = []
    limits: Limits = Limits(timeout=1800.0)


class SageMaker(Model):
    """Where a training job runs: its role, the image that has the project's environment, the machine, and
    the S3 prefix for inputs and outputs."""

    role: Text
    image: Text
    instance: Text = "ml.m5.large"
    s3: Annotated[str, Field(pattern=r"^s3://[^/]+/?.*$")]
    region: Text | None = None
    experiments: bool = False


class Ray(Model):
    """The cluster: `address` of one that runs, or a local one for as long as the stage takes."""

    address: Text | None = None
    cpus: Annotated[float, Field(gt=0)] = 1.0


class Train(Model):
    """It reads train.parquet, and writes model.onnx (or a folder `model`) and metrics.json; lines of JSON
    appended to metrics.jsonl, such as {"step": 3, "loss": 0.4}, are shown while it runs."""

    entry: Entry
    params: dict[str, Any] = {}
    credentials: dict[str, Annotated[str, Field(pattern=r"^(env|file):.+$")]] = {}
    limits: Limits = Limits()
    runs_on: Where = "local"
    sagemaker: SageMaker | None = None
    ray: Ray = Ray()

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.runs_on == "sagemaker" and self.sagemaker is None:
            raise ValueError("`runs_on: sagemaker` wants `sagemaker`: role, image and s3")
        return self


class Evaluate(Model):
    """How the model is asked. Without `entry` its model.onnx is run by ONNX Runtime. A function
    `load(model: Path)` gives a callable from a pyarrow Table to scores (n,) or (n, classes); a command reads
    OPSDECK_INPUTS/rows.parquet and OPSDECK_INPUTS/model and writes predictions.parquet, a column a class."""

    entry: Entry | None = None
    metrics: list[Text] = []
    classes: list[str] = []
    batches: list[Annotated[int, Field(ge=1, le=65536)]] = [1, 16, 256]
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    limits: Limits = Limits(timeout=1800.0)


class Robustness(Model):
    """`cases`: the folder of the hard cases that are kept with the model."""

    cases: Inside = "cases"
    perturbations: list[Perturbation] = []
    behaviours: list[Behaviour] = []
    rows: Annotated[int, Field(ge=10, le=1_000_000)] = 2000


class Staging(Model):
    """Real model servers, asked as the product will ask them. `downstream` is a JSON schema that every
    answer must satisfy; `requests` are held-out rows that are sent."""

    downstream: Inside | None = None
    replicas: Annotated[int, Field(ge=1, le=8)] = 2
    requests: Annotated[int, Field(ge=1, le=10_000)] = 200
    concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    p99_ms: Annotated[float, Field(gt=0)] = 100.0
    largest_mb: Annotated[float, Field(gt=0)] = 1.0


class Replicas(Model):
    """How many servers: at least `min`, and at most `max` when there is much to do."""

    min: Annotated[int, Field(ge=1, le=1000)] = 2
    max: Annotated[int, Field(ge=1, le=1000)] = 4

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"`max` is {self.max}, fewer than `min`, {self.min}")
        return self


class Serving(Model):
    """How the model is served from a container: `opsdeck pipeline render` makes the files of it. `base` is
    the image to build on, `image` the one that was built, each by digest; `cpu` (cores) and `memory_mb` are
    of one replica, and more of them come when they use `target_cpu` percent of their `cpu`."""

    base: Pinned | None = None
    image: Pinned | None = None
    namespace: Annotated[str, Field(pattern=NAME, max_length=63)] | None = None
    cpu: Annotated[float, Field(ge=0.01, le=1024)] = 0.5
    memory_mb: Annotated[int, Field(ge=64, le=1 << 22)] = 512
    replicas: Replicas = Replicas()
    port: Annotated[int, Field(ge=1024, le=65535)] = 8080
    target_cpu: Annotated[int, Field(ge=10, le=100)] = 70


class Slot(Model):
    """A place for a model: the folder (inside the engine's home, or absolute) that the service's process
    `process` serves from, and the variant that it is for the router."""

    folder: Text
    process: Name
    variant: Name


class Release(Model):
    """What a release does: lay the model out in the folder (inside the engine's home, or absolute) that the
    service's process `process` serves from, restart that process, and start `procedure`, which moves the
    traffic to `variant`. `other` is where the next release goes while `variant` has the traffic. `lock` and
    `image` are what production has installed, where it is not what its champion was released with."""

    service: Name
    folder: Text
    process: Name
    variant: Name = "challenger"
    other: Slot | None = None
    lock: Text | None = None
    image: Annotated[str, Field(pattern=r"^\S+@sha256:[0-9a-f]{64}$")] | None = None
    procedure: Name = "start-rollout"
    params: dict[str, Any] = {}

    def slots(self) -> list[Slot]:
        first = Slot(folder=self.folder, process=self.process, variant=self.variant)
        return [first] if self.other is None else [first, self.other]


class Retraining(Model):
    """What begins this pipeline by itself. At most one run of a model at a time; what comes while one runs
    waits, and of several only the newest is built. `quiet`: so long nothing more must come first.
    `procedure` is what is run: it gets `project`, and `cause`, `commit` and `folder` where it has them."""

    commits: Git | None = None
    data: DataTrigger | None = None
    cron: list[Cron] = []
    drift: bool = False
    webhook: bool = False
    quiet: Positive = 60.0
    procedure: Name = "train-and-release"


class Git(Model):
    """A repository's branch, looked at every `every`. Without `repository` it is the project's own."""

    repository: Text | None = None
    branch: Text = "main"
    paths: list[Text] = []
    every: Positive = 60.0


class DataTrigger(Model):
    """A new digest of the project's data, looked at every `every`."""

    every: Positive = 300.0


class Cron(Model):
    """`at`: a cron expression, in `zone`. `missed`: while the engine was down, run once at the next start
    (`catch up`) or not at all (`skip`)."""

    at: Text
    zone: Text = "UTC"
    missed: Literal["catch up", "skip"] = "skip"


class Project(Model):
    """The whole of `opsdeck.pipeline.yaml`."""

    opsdeck: Literal[1]
    project: Name
    model: Name
    task: Task
    owner: Text
    title: str = ""
    environment: Environment
    code: list[Inside] = CODE
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data
    tests: Tests = Tests()
    train: Train
    evaluate: Evaluate = Evaluate()
    robustness: Robustness = Robustness()
    gates: list[Gate] = Field(min_length=1)
    staging: Staging = Staging()
    serving: Serving = Serving()
    release: Release | None = None
    triggers: Retraining | None = None
    tracking: Text | None = None


Retraining.model_rebuild()
Project.model_rebuild()
