"""What the demo writes before an engine starts is valid, private, and apart from other demos."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
import yaml

from engine.config import Config
from engine.demo import configs
from engine.demo.export import OUTPUT
from engine.demo.layout import FIRST_PORT, LAST_PORT, PORTS, Layout, ports
from engine.errors import UsageError
from engine.pipeline.project import reading
from engine.reproduce import git
from engine.serving import gateway_config


def written(layout: Layout) -> Config:
    return Config.model_validate(yaml.safe_load(layout.config.read_text()))


def test_the_engines_config_is_valid_and_has_the_four_processes(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False, rps=20)
    service = written(layout).services["flights"]
    chosen = ports(layout)
    assert list(service.processes) == ["champion", "challenger", "gateway", "replayer"]
    assert service.scrape == [f"http://127.0.0.1:{chosen['gateway']}/metrics"]
    assert service.gateway is not None and service.gateway.admin == layout.gateway_admin
    assert service.limits["p99_ms"].above == 150 and service.limits["p99_ms"].hold == 20
    assert service.limits["error_ratio"].above == 0.02
    assert service.limits["age_s"].runbooks == ["gateway-down"]
    command = service.processes["replayer"].command
    assert command[command.index("--rps") + 1] == "20"
    assert service.processes["champion"].ready == f"http://127.0.0.1:{chosen['champion']}/ping"


def test_the_engine_knows_the_pipeline_project_and_where_its_models_are(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    pipelines = written(layout).pipelines
    assert pipelines.projects == {"flights": layout.project}
    assert pipelines.tracking == f"sqlite:///{layout.tracking}"
    assert pipelines.artifacts == layout.artifacts.as_uri()
    assert reading.problems(layout.project) == []
    assert not list(layout.project.rglob("__pycache__"))


def test_the_project_is_a_repository_of_one_commit_where_git_is_there(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "someone else")
    layout = configs.prepare(tmp_path / "one", running=False)
    code = git.state(layout.project)
    assert code is not None and code.commit is not None and code.dirty is None and code.folder == ""
    told = git.git(layout.project, "log", "--format=%an <%ae> %D").stdout.decode().strip()
    assert told == "Opsdeck demo <opsdeck-demo@example.invalid> HEAD -> main"
    (layout.project / "tests" / "__pycache__").mkdir()
    (layout.project / "tests" / "__pycache__" / "a.pyc").touch()
    assert git.changes(layout.project) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    without = configs.prepare(tmp_path / "two", running=False)
    assert without.project.is_dir() and not (without.project / ".git").exists()


def test_a_project_that_somebody_has_changed_is_kept(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    (layout.project / "train.py").write_text("# mine\n")
    configs.prepare(tmp_path, running=False)
    assert (layout.project / "train.py").read_text() == "# mine\n"
    assert [one.name for one in layout.project.parent.iterdir()] == ["flights"]


def test_the_gateways_config_is_one_that_the_gateway_takes(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    config = gateway_config.read(layout.gateway)
    assert config.weights() == {"champion": 95.0, "challenger": 5.0}
    assert config.port == ports(layout)["gateway"]
    assert config.prediction_bins is not None and config.prediction_bins.output == OUTPUT
    assert len(config.prediction_bins.bins().names) == 11
    assert [config.variants[name].version for name in ("champion", "challenger")] == ["1", "2"]


def test_two_homes_get_different_ports_below_the_ephemeral_ones(tmp_path: Path) -> None:
    one = ports(configs.prepare(tmp_path / "one", running=False))
    two = ports(configs.prepare(tmp_path / "two", running=False))
    everything = [*one.values(), *two.values()]
    assert len(set(everything)) == 2 * len(PORTS)
    assert all(FIRST_PORT <= port < LAST_PORT for port in everything)


def test_ports_are_remembered_and_one_that_somebody_took_is_chosen_anew(tmp_path: Path) -> None:
    before = ports(configs.prepare(tmp_path, running=False))
    assert ports(configs.prepare(tmp_path, running=False)) == before
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", before["gateway"]))
        somebody.listen()
        assert ports(configs.prepare(tmp_path, running=True)) == before  # it may be ours
        after = ports(configs.prepare(tmp_path, running=False))
    assert after["gateway"] != before["gateway"]
    assert {**after, "gateway": before["gateway"]} == before


def test_versions_are_those_of_the_models_that_are_laid_out(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    layout.model("challenger").mkdir(parents=True)
    (layout.model("challenger") / "manifest.json").write_text(json.dumps({"version": "7"}))
    configs.prepare(tmp_path, running=False)
    assert written(layout).services["flights"].versions == {"champion": "1", "challenger": "7"}
    assert gateway_config.read(layout.gateway).variants["challenger"].version == "7"


def test_a_config_that_the_demo_did_not_write_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "opsdeck.yaml").write_text("services: {}\n")
    with pytest.raises(UsageError, match="a config of its own"):
        configs.prepare(tmp_path, running=False)
    assert (tmp_path / "opsdeck.yaml").read_text() == "services: {}\n"
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("name", ["100%", "what?"])
def test_a_path_that_mlflow_cannot_use_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="under a path with % or"):
        configs.prepare(tmp_path / name, running=False)
    assert not (tmp_path / name).exists()


def test_a_home_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("very-long-name-" * 6) / ("and-longer-still-" * 4)
    layout = configs.prepare(home, running=False)
    config = gateway_config.read(layout.gateway)
    assert len(config.admin_socket.encode()) <= 107
    assert str(written(layout).services["flights"].gateway.admin) == config.admin_socket  # type: ignore[union-attr]
    assert Path(config.admin_socket).parent.is_dir()


def test_nobody_else_can_look_into_the_demo(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    for path in (layout.root, layout.root / "faults", layout.root / "models"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (layout.config, layout.gateway, layout.ports):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_list_of_ports_is_a_sentence(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    layout.ports.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        configs.prepare(tmp_path, running=False)


def test_it_imports_no_heavy_library() -> None:
    import subprocess
    import sys

    code = ("import sys, pathlib, tempfile; from engine.demo import configs;"
            "configs.prepare(pathlib.Path(tempfile.mkdtemp()), running=False);"
            "print([m for m in ('numpy', 'pandas', 'sklearn', 'mlflow', 'onnx', 'aiohttp')"
            " if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"




def test_what_somebody_added_to_the_config_stays_when_the_demo_writes_it_again(tmp_path: Path) -> None:
    layout = configs.prepare(tmp_path, running=False)
    text = layout.config.read_text().replace("  projects:\n", "  projects:\n    churn: /srv/churn  # mine\n")
    layout.config.write_text(text)
    configs.prepare(tmp_path, running=False)
    assert layout.config.read_text() == text
    configs.prepare(tmp_path, running=False, rps=7)
    assert written(layout).pipelines.projects == {"flights": layout.project, "churn": Path("/srv/churn")}
    assert "7" in written(layout).services["flights"].processes["replayer"].command
