"""What identifies a run: its plugins' code, its backbone's source, where its prompts are."""

import copy
import json
import shutil
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from b2bench.backbones.specs import find_backbone
from b2bench.config.choices import DEFAULTS, Choices, overruled, quickened, resolved, with_file
from b2bench.config.presets import load_preset
from b2bench.config.resolve import from_dict, resolve, resolve_preset
from b2bench.config.run import RunConfig, cell_hash
from b2bench.config.settings import Settings
from b2bench.errors import UserError
from b2bench.hyperparameters import build
from b2bench.metrics import METRICS, style_share
from b2bench.pocket.paths import NETWORKS
from b2bench.pocket.world import WORLD
from b2bench.registry import KINDS, check_name

LOSS = '''
from b2bench.registry import algorithm

@algorithm
class Mine:
    """A loss."""
    pairs = False
    sign: float = {sign}
    """Which way"""

    def loss(self, policy, batch):
        return self.sign * batch.advantage.mean(), {{}}
'''


def config(**changes: Any) -> RunConfig:
    choices: dict[str, Any] = {
        "algorithm": "ddpo",
        "wrapper": "b2",
        "reward": "clipscore",
        "backbone": "pocket",
        "prompts": "template1",
        "queries": 10,
        "seed": 0,
        "values": {},
    }
    return resolve(**{**choices, **changes})


def test_what_a_run_was_is_found_again_from_its_row() -> None:
    was = config(values={"lr": 2e-3, "ddpo.clip_nats": 1.0})
    again = from_dict(was.as_dict())
    assert again.as_dict() == was.as_dict()
    assert again.cell_hash() == was.cell_hash()


@pytest.mark.parametrize(
    "damage",
    [{"found": {}}, {"settings": {"lr": "fast"}}, {"algorithm": {}}, {"reward": {"name": 3}}, {"queries": "many"}],
)
def test_a_damaged_row_is_told_from_a_bug(damage: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        from_dict(config().as_dict() | damage)


def test_seed_and_micro_batch_are_no_part_of_a_cell() -> None:
    was = config()
    assert config(seed=3, values={"micro_batch": 7}).cell_hash() == was.cell_hash()
    assert config(values={"lr": 2e-3}).cell_hash() != was.cell_hash()


def test_reward_noise_is_part_of_a_cell_where_there_is_any() -> None:
    was = config()
    before = was.as_dict()
    assert before["settings"].pop("reward_noise") == 0  # a row of a b2bench that knew no such setting
    assert cell_hash(before) == was.cell_hash() == config(values={"reward_noise": 0}).cell_hash()
    assert from_dict(before).as_dict() == was.as_dict()
    noisy = config(values={"reward_noise": "0.1"})
    assert noisy.as_dict()["settings"]["reward_noise"] == 0.1
    assert len({was.cell_hash(), noisy.cell_hash(), config(values={"reward_noise": 0.2}).cell_hash()}) == 3


@pytest.mark.slow
def test_what_is_equal_in_cells_is_part_of_a_cell_and_what_does_not_count_is_not() -> None:
    was, steps = config(), config(values={"equal": "steps"})
    hashes = [steps.cell_hash(), *(config(values=v).cell_hash() for v in (
        {"transitions_per_step": 50}, {"epochs": 2}, {"equal": "steps", "optimizer_steps": 8}
    ))]  # fmt: skip
    assert len({was.cell_hash(), *hashes}) == 5
    assert config(values={"equal": "steps", "epochs": 2, "transitions_per_step": 7}).cell_hash() == steps.cell_hash()
    before = was.as_dict()
    assert [before["settings"].pop(name) for name in ("equal", "transitions_per_step", "epochs")] == [
        "transitions", 100, 1,
    ]  # fmt: skip
    assert cell_hash(before) not in (was.cell_hash(), steps.cell_hash())  # a row of an earlier benchmark version
    with pytest.raises(UserError, match="optimizer_steps = 8 counts with equal=steps alone"):
        config(values={"optimizer_steps": 8})


def own(tmp_path: Path, defaults: str) -> dict[str, Any]:
    """Choices of a run of an algorithm that declares ``defaults``."""
    path = tmp_path / "mine.py"
    path.write_text(LOSS.format(sign=1.0).replace("pairs = False", f"pairs = False\n    defaults = {defaults}"))
    return {"algorithm": "mine", "plugins": (path,)}


@pytest.mark.slow
def test_an_algorithms_default_stands_behind_presets_and_set(tmp_path: Path) -> None:
    mine = own(tmp_path, "{'lr': 7e-3, 'updates_per_round': 2}")
    assert config().settings.lr == Settings.lr
    assert (config(**mine).settings.lr, config(**mine).settings.updates_per_round) == (7e-3, 2)
    given = config(**mine, values={"lr": 2e-3, "updates_per_round": "none"})
    assert (given.settings.lr, given.settings.updates_per_round) == (2e-3, None)
    assert from_dict(given.as_dict()).as_dict() == given.as_dict()
    assert from_dict(config(**mine).as_dict()).settings == config(**mine).settings
    options = {"algo": "mine", "wrapper": "b2"}
    paper = resolve_preset("paper", given=options, defaults=DEFAULTS, values={}, plugins=mine["plugins"])
    assert (paper.settings.lr, paper.settings.updates_per_round) == (1e-4, 2)
    assert paper.preset is not None
    assert paper.preset["deviations"] == []


def test_the_update_protocol_is_part_of_a_cell() -> None:
    pg, many = config(algorithm="pg"), config(algorithm="pg", values={"updates_per_round": "none"})
    assert (pg.settings.updates_per_round, many.settings.updates_per_round) == (1, None)
    assert pg.cell_hash() != many.cell_hash()
    row = config().as_dict()
    row["settings"] = {name: value for name, value in row["settings"].items() if name != "updates_per_round"}
    assert cell_hash(row) == config().cell_hash()  # as before there was the setting


@pytest.mark.slow
def test_what_came_later_is_part_of_a_cell_where_it_is_used() -> None:
    before: dict[str, Any] = {"dpo.clip_nats": "none"}
    was = config(algorithm="dpo", values=before).as_dict()
    del was["wrapper"]["schedule_rounds"], was["algorithm"]["clip_nats"]
    assert cell_hash(was) == config(algorithm="dpo", values=before).cell_hash()
    for values in ({**before, "schedule_rounds": 100}, {}, {"dpo.clip_nats": 1.0}):
        assert config(algorithm="dpo", values=values).cell_hash() != cell_hash(was)
    for algorithm, later, used in (("ddpo", "kl_weight", 0.1), ("rwr", "guided", True)):
        was = config(algorithm=algorithm).as_dict()
        del was["algorithm"][later]
        assert cell_hash(was) == config(algorithm=algorithm).cell_hash()
        assert config(algorithm=algorithm, values={later: used}).cell_hash() != cell_hash(was)


@pytest.mark.parametrize(
    ("defaults", "reason"),
    [
        ("{'draws': 3}", "'draws', which is equal in every cell; an algorithm may declare lr and updates_per_round"),
        ("3", "defaults is a int; try a dict"),
        ("{'lr': 'fast'}", "lr = 'fast' is not of type float"),
        ("{'updates_per_round': 0}", "updates_per_round = 0 is below 1"),
    ],
)
def test_what_an_algorithm_cannot_declare_is_refused(defaults: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        config(**own(tmp_path, defaults))


def test_another_loss_in_the_same_file_is_another_cell_and_does_not_resume(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(LOSS.format(sign=1.0))
    was = config(algorithm="mine", plugins=(file,))
    assert from_dict(was.as_dict()).cell_hash() == was.cell_hash()
    file.write_text(LOSS.format(sign=1.0).replace("self.sign *", "-self.sign *"))
    assert config(algorithm="mine", plugins=(file,)).cell_hash() != was.cell_hash()
    with pytest.raises(UserError, match="algorithm mine has changed"):
        from_dict(was.as_dict())


def test_what_is_built_in_carries_no_code() -> None:
    assert not any("code" in config().as_dict()[kind] for kind in ("algorithm", "wrapper", "reward"))


@pytest.mark.parametrize("name", ["pocket", "sd14"])
def test_a_folder_called_like_a_backbone_is_not_that_backbone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(find_backbone("pocket").source, folder)
    was = config(backbone=str(folder), values={"guidance": 3.0, "checkpoint": "pocket"})
    assert was.backbone.name != name
    again = from_dict(was.as_dict())
    assert again.backbone.source == str(folder)
    assert again.cell_hash() == was.cell_hash() != config(values={"guidance": 3.0}).cell_hash()


def test_a_run_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(find_backbone("pocket").source, tmp_path / "net")
    (tmp_path / "mine.txt").write_text("a cat riding a bike\n")
    monkeypatch.chdir(tmp_path)
    was = config(prompts="mine.txt", backbone="net", values={"checkpoint": "pocket"}).as_dict()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert from_dict(was).as_dict() == was


@pytest.mark.parametrize(
    "name", [*(name for name in METRICS if not METRICS[name].reward), style_share("flat"), "Style_Flat"]
)
def test_a_reward_is_not_called_like_a_metric(tmp_path: Path, name: str) -> None:
    file = tmp_path / "reward.py"
    file.write_text(
        "from b2bench.registry import reward\n\n"
        f'@reward\nclass {name}:\n    """Mean."""\n\n'
        "    def __call__(self, images, prompts):\n        return images.flatten(1).mean(1)\n"
    )
    with pytest.raises(UserError, match="metric"):
        config(reward=name.lower(), plugins=(file,))


@pytest.mark.parametrize("name", ["a/b", "..", "a,b", "a b", "-x", "a=b", "run:x", "a\nb", "x" * 65])
def test_a_name_that_no_folder_or_list_takes_is_refused(name: str) -> None:
    for kind in KINDS:
        with pytest.raises(UserError, match=f"cannot be the name of an? {kind}"):
            check_name(kind, name)


def test_names_of_plugins() -> None:
    for name in ("mine", "noise_weighted", "R1", "ä", "open-clip", "a.b", "x" * 64):
        check_name("reward", name)


def test_a_backbone_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "net").symlink_to(find_backbone("pocket").source)
    assert find_backbone("~/net").source == str((tmp_path / "net").resolve())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"values": {"clip_nats": -1}}, "clip_nats"),
        ({"algorithm": "dpo", "values": {"eps": 1.5}}, "eps"),
        ({"algorithm": "dpo", "values": {"beta": 0}}, "beta"),
        ({"algorithm": "dpok", "values": {"kl_weight": -1}}, "kl_weight"),
        ({"values": {"batch": 0}}, "batch"),
        ({"values": {"reward_noise": -0.1}}, "reward_noise"),
        ({"values": {"reward_noise": "inf"}}, "reward_noise"),
        ({"values": {"reward_noise": "nan"}}, "reward_noise"),
        ({"reward": "bertscore", "values": {"max_new_tokens": 0}}, "max_new_tokens"),
        ({"values": {"lora_rank": 10**8}}, "lora_rank"),
    ],
)
def test_a_value_out_of_range_is_refused_before_the_run(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        config(**changes)


def test_the_hash_of_a_cell_changes_nothing_of_what_it_is_given() -> None:
    content = config().as_dict()
    before = copy.deepcopy(content)
    cell_hash(content)
    assert content == before


def test_the_hash_of_a_cell_is_that_of_its_row() -> None:
    was = config()
    assert cell_hash(was.as_dict()) == was.cell_hash()
    assert cell_hash({**was.as_dict(), "seed": 9}) == was.cell_hash()
    assert replace(was, queries=20).cell_hash() != was.cell_hash()


def test_the_default_prompts_are_the_backbones() -> None:
    assert config(prompts=None).prompts.name == "template1"


def test_prompts_of_another_backbone_are_refused_with_those_that_fit() -> None:
    with pytest.raises(UserError, match=r"not for the backbone pocket,.*pocket-template2, pocket-template3, template1"):
        config(prompts="template2")


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    """What ``pocket build --variant wide --install`` leaves; the models are the default's."""
    weights = Path(find_backbone("pocket").source).parent
    folder = tmp_path / "wide"
    folder.mkdir()
    for name in (*NETWORKS, "scorer-training"):
        (folder / name).symlink_to(weights / name)
    (folder / "variant.json").write_text(json.dumps({"variant": "wide", "world": WORLD}))
    return folder


def test_a_variant_of_pocket_brings_its_scorer_and_keeps_the_vocabulary(variant: Path) -> None:
    was = config(backbone=str(variant))
    assert was.backbone.name == "pocket-wide"
    assert was.reward.checkpoint == str(variant / "scorer-training")
    assert config(backbone=str(variant), reward="bertscore").reward.checkpoint == "pocket"
    assert config(backbone=str(variant), reward="success").backbone.is_pocket
    assert was.cell_hash() != config().cell_hash()
    assert from_dict(was.as_dict()).as_dict() == was.as_dict()
    with pytest.raises(UserError, match=r"not for the backbone pocket-wide.*template1"):
        config(backbone=str(variant), prompts="template3")


def test_a_variant_of_another_world_is_refused(variant: Path) -> None:
    (variant / "variant.json").write_text(json.dumps({"variant": "wide", "world": WORLD - 1}))
    with pytest.raises(UserError, match=f"world {WORLD - 1}.*try building it again"):
        config(backbone=str(variant))
    (variant / "variant.json").write_text(json.dumps({"variant": "wide", "world": WORLD}))
    (variant / NETWORKS[1]).unlink()
    with pytest.raises(UserError, match=f"without {NETWORKS[1]}/model_index.json"):
        config(backbone=str(variant))
    (variant / "variant.json").write_text("[]")
    with pytest.raises(UserError, match=r"variant\.json cannot be read"):
        config(backbone=str(variant))


def test_labels_name_no_setting_that_tells_no_cells_apart() -> None:
    from b2bench.leaderboard.cells import NO_SETTING

    from b2bench.config.settings import NO_IDENTITY

    assert set(NO_SETTING) == {"seed", "found", "preset", "tuning", *(f"settings.{name}" for name in NO_IDENTITY)}


def test_a_default_checkpoint_that_is_not_auto_stays(tmp_path: Path) -> None:
    plugin = tmp_path / "rated.py"
    plugin.write_text(
        "from b2bench import reward\n\n@reward\nclass Rated:\n    checkpoint: str = 'weights-of-mine'\n"
        "    '''A folder'''\n\n    def __call__(self, images, prompts): ...\n"
    )
    was = config(reward="rated", plugins=(plugin,))
    assert was.reward.checkpoint == "weights-of-mine"
    own = config(reward="rated", plugins=(plugin,), values={"checkpoint": "other"})
    assert own.reward.checkpoint == "other"


@pytest.mark.parametrize(("lower", "upper"), [("lr", "run.lr"), ("run.lr", "lr"), ("lr", "lr"), ("run.lr", "run.lr")])
def test_an_assignment_overrules_the_file_however_it_names_the_part(lower: str, upper: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'algo = "ddpo"\n[set]\n"{lower}" = 1e-4\ndraws = 12\n')
    chosen = with_file(Choices(), file, (f"{upper}=1e-3",))
    assert resolved(chosen).settings.lr == 1e-3
    assert resolved(chosen).settings.draws == 12
    quick = quickened(Choices(algo="ddpo", values={"run.draws": 13}))
    assert resolved(quick).settings.draws == 13


def test_no_queries_are_not_the_usual_number_of_a_quick_run() -> None:
    assert quickened(Choices(algo="ddpo")).queries == 240
    with pytest.raises(UserError, match="queries = 0"):
        resolved(quickened(Choices(algo="ddpo", queries=0)))


def test_two_of_a_part_each_are_no_overruling() -> None:
    assert overruled({"dpo.eps": 1, "run.lr": 2}, {"dpok.eps": 3}) == {"dpo.eps": 1, "run.lr": 2, "dpok.eps": 3}


@pytest.mark.parametrize("value", [1, 3.5])
def test_a_text_is_no_number(value: Any) -> None:
    with pytest.raises(UserError, match=r"reward_device = .* is not of type str"):
        resolved(Choices(algo="ddpo", values={"reward_device": value}))


@pytest.mark.parametrize("line", ["seeds = true", "seeds = 0", "seeds = 2.5", "notes = [1, {a = 2}]", "about = 3"])
def test_a_preset_with_values_of_another_type_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(line + "\n")
    with pytest.raises(UserError, match="notes a list of texts, and seeds a whole number above 0"):
        load_preset(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("name", ["name", "code"])
def test_a_hyperparameter_that_the_configuration_has_no_place_for_is_refused(name: str) -> None:
    made = make_dataclass("Mine", [(name, str, "a")])
    with pytest.raises(UserError, match=f"{name} is no name for a hyperparameter"):
        build(made, {})
