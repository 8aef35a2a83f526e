"""What `b2bench doctor` finds, and what it calls broken."""

import json
import sys
from pathlib import Path

import pytest
import torch

import b2bench
from b2bench.describe import doctor
from b2bench.describe.doctor import CHECKPOINTS, examine


def by_name(db: Path) -> dict[str, doctor.Finding]:
    return {f"{finding.part} {finding.name}": finding for finding in examine(db)}


@pytest.mark.slow
def test_this_machine_can_run_the_embedded_default(tmp_path: Path) -> None:
    found = by_name(tmp_path / "none.duckdb")
    assert found["device cpu"].state == "ok"
    assert found["precision fp32 on cpu"].state == "ok"
    assert found["package b2bench"].detail == b2bench.both_versions()
    assert found["package torch"].detail.startswith(torch.__version__.split("+")[0])
    assert found["checkpoint pocket"].state == "ok"
    assert found[f"store {tmp_path / 'none.duckdb'}"].state == "absent"
    assert not [finding for finding in found.values() if finding.state == "broken"]


def test_a_checkpoint_in_the_hub_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = CHECKPOINTS[0]
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert doctor._cached(hub) == ""
    repository = tmp_path / f"models--{hub.repository.replace('/', '--')}"
    file = repository / "snapshots" / "abc" / hub.files[0]
    file.parent.mkdir(parents=True)
    file.write_text("")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert doctor._cached(hub) == str(repository / "snapshots" / "abc")


def test_an_index_without_its_shards_is_half_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub = next(hub for hub in CHECKPOINTS if hub.files[0].endswith(".index.json"))
    repository = tmp_path / f"models--{hub.repository.replace('/', '--')}"
    folder = repository / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (folder / hub.files[0]).write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    (folder / "one.safetensors").write_text("")
    assert doctor._cached(hub) == ""
    (folder / "two.safetensors").write_text("")
    assert doctor._cached(hub) == str(folder)
    (folder / hub.files[0]).write_text("{")
    assert doctor._cached(hub) == ""


def test_a_missing_torch_fidelity_is_told_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    assert {finding.name: finding.state for finding in doctor._checkpoints()}["Inception v3"] == "absent"


def test_what_cannot_work_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.duckdb").write_text("no store")
    monkeypatch.setattr(doctor, "POCKET_WEIGHTS", tmp_path)

    def no_half(device: torch.device, dtype: torch.dtype) -> float:
        if dtype == torch.float16:
            raise RuntimeError("not implemented for Half")
        return 1.0

    monkeypatch.setattr(doctor, "_convolution_seconds", no_half)
    found = by_name(tmp_path / "text.duckdb")
    assert found["checkpoint pocket"].state == "broken"
    assert found[f"store {tmp_path / 'text.duckdb'}"].state == "broken"
    assert found["precision fp16 on cpu"].state == "absent"
    assert "Half" in found["precision fp16 on cpu"].detail


@pytest.mark.slow
def test_every_line_is_plain_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each finding part, name, state and detail: words of one line, a state that is known, and each name once."""
    monkeypatch.setattr(doctor, "_convolution_seconds", lambda *_: 0.25)  # its seconds, which take long, are no words
    findings = examine(tmp_path / "none.duckdb")
    read = json.loads(json.dumps([vars(finding) for finding in findings]))
    assert read == [vars(finding) for finding in findings]
    for line in read:
        assert set(line) == {"part", "name", "state", "detail"}
        assert line["state"] in ("ok", "absent", "broken")
        for word in line.values():
            assert isinstance(word, str)
            assert word.isprintable()
        assert line["part"]
        assert line["name"]
        assert line["detail"] or line["state"] == "ok"
    names = [(line["part"], line["name"]) for line in read]
    assert len(set(names)) == len(names)
    assert {"package", "device", "precision", "checkpoint", "store"} <= {line["part"] for line in read}
