"""The model in production as the registry knows it, fetched with its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.errors import OpsdeckError, UsageError
from engine.pipeline.releasing.registry import CHAMPION, Registry, answering
from engine.reproduce import payload


@dataclass(frozen=True)
class Champion:
    """`model`: its file or folder, here. `payload`: its canonical digest, which tells it from another."""

    name: str
    version: str
    run_id: str | None
    model: Path
    payload: str

    def as_json(self) -> dict[str, str | None]:
        return {"name": self.name, "version": self.version, "mlflow_run": self.run_id,
                "payload": self.payload}


def fetch(registry: Registry, name: str, into: Path) -> Champion | None:
    """The version with the alias `champion`, its files in `into`; None where no model has it yet. Raises
    ActionFailed while the registry does not answer, UsageError for a version without a model."""
    version = registry.aliases(name).get(CHAMPION)
    found = None if version is None else registry.version(name, version)
    if version is None or found is None:
        return None
    with answering(registry.tracking):
        got = Path(registry.mlflow.artifacts.download_artifacts(
            artifact_uri=f"models:/{name}/{version}", dst_path=str(into)))
    model = _model(got, found.tags.get("opsdeck.model"), f"{name} version {version}")
    return Champion(name, version, found.run_id or None, model,
                    found.tags.get("opsdeck.payload") or payload.digest(model).sha256)


def _model(got: Path, tagged: str | None, named: str) -> Path:
    """What training once left: an ONNX file, or the folder itself."""
    if tagged is not None and (got / tagged).exists():
        return got / tagged
    found = sorted(got.glob("*.onnx"))
    if len(found) == 1 and tagged != "model":
        return found[0]
    if not got.is_dir() or not any(got.iterdir()):
        raise UsageError(f"{named} has no files in the registry", where=str(got),
                         hint="someone may have removed its artifacts")
    return got / "model" if (got / "model").is_dir() else got


def says(error: OpsdeckError, champion: Champion) -> str:
    """Why a champion cannot be asked."""
    return (f"The model in production, {champion.name} version {champion.version}, cannot be asked on this "
            f"data: {error.message}")
