"""Estimates: calls are those that a run makes, memory grows with its rows, and what is said to fit fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from b2bench.backbones.specs import find_backbone
from b2bench.config.choices import DEFAULTS
from b2bench.config.resolve import resolve, resolve_preset
from b2bench.config.run import RunConfig
from b2bench.errors import UserError
from b2bench.estimate.calls import LossCost, count_calls, hours, kept_rows, loss_cost, network_parameters
from b2bench.estimate.estimate import Estimate, estimate
from b2bench.estimate.fit import (
    MicroBatches,
    disk_bytes,
    fitting,
    own_micro_batches,
    phase_bytes,
    resident_bytes,
    training_line,
    within,
)
from b2bench.estimate.footprint import GIB, Line, judges, measure
from b2bench.plugins.counting import counted_cost
from b2bench.registry import Registry
from b2bench.store.store import Store
from b2bench.terminal.estimate import calls_table
from b2bench.training.trainer import Trainer
from b2bench.wrappers import Vanilla

TINY = {
    "draws": 2,
    "samples": 2,
    "steps": 4,
    "transitions_per_step": 5,
    "lora_rank": 2,
    "eval_points": 3,
    "eval_images": 3,
    "eval_train_images": 2,
}


def pocket(algorithm: str = "ddpo", wrapper: str = "vanilla", queries: int = 10, **values: Any) -> RunConfig:
    return resolve(
        algorithm=algorithm,
        wrapper=wrapper,
        reward="clipscore",
        backbone="pocket",
        queries=queries,
        seed=0,
        values={**TINY, **values},
    )


def paper(algorithm: str = "ddpo", wrapper: str = "vanilla", **values: Any) -> RunConfig:
    return resolve_preset("paper", given={"algo": algorithm, "wrapper": wrapper}, defaults=DEFAULTS, values=values)


# -- calls -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "wrapper"),
    [
        ("ddpo", "vanilla"),
        ("dpok", "bpt"),
        ("dpo", "b2"),
        ("pg", "bs"),
        ("pg", "vanilla"),
        ("ddpo", "tree"),
        ("draft1", "vanilla"),
    ],
)
def test_calls_are_those_of_a_run(algorithm: str, wrapper: str, tmp_path: Path) -> None:
    config = pocket(algorithm, wrapper)
    assert config.rounds == 3  # the last one is shorter
    store = Store(tmp_path / "runs.duckdb")
    from b2bench.training.provenance import run_row

    trainer = Trainer(config, "run", store, tmp_path / "run")
    (tmp_path / "run").mkdir()
    store.start_run(run_row(config, "run", None, trainer.policy))
    before = trainer.policy.calls
    trainer.run()
    rows = store.rounds("run")
    calls = count_calls(config)
    assert calls.sampling == sum(row["denoiser_calls_sampling"] for row in rows)
    trained = sum(row["denoiser_calls_training"] for row in rows)
    assert calls.training[0] <= trained <= calls.training[1]
    with_gradient = sum(row["denoiser_calls_gradient"] for row in rows)
    assert with_gradient == round(calls.gradient * trained) > 0
    assert calls.equivalents[0] <= calls.sampling + trained + 2 * with_gradient <= calls.equivalents[1]
    assert calls.optimizer_steps[0] <= sum(row["optimizer_steps"] for row in rows) <= calls.optimizer_steps[1]
    assert calls.exact == (wrapper in ("vanilla", "bpt", "tree") and algorithm != "dpo")
    assert not calls.exact or calls.optimizer_steps[0] == calls.optimizer_steps[1]
    assert calls.evaluation == trainer.policy.calls - before - calls.sampling - trained
    assert config.evaluations() == sorted({row["queries"] for row in store.evals(["run"])})
    assert kept_images(config) == len(list((tmp_path / "run" / "samples").glob("*.png")))
    if (algorithm, wrapper) not in (("ddpo", "vanilla"), ("dpo", "b2")):
        return  # the first evaluation is of the pretrained model, and the same for all of them
    # a second run takes the first evaluation over, and draws its sample images
    again = Trainer(config, "again", store, tmp_path / "again")
    (tmp_path / "again").mkdir()
    store.start_run(run_row(config, "again", None, again.policy))
    before = again.policy.calls
    again.run()
    spent = sum(row["denoiser_calls_sampling"] + row["denoiser_calls_training"] for row in store.rounds("again"))
    assert calls.later.evaluation == again.policy.calls - before - spent < calls.evaluation


def test_optimizer_steps_follow_from_what_is_kept() -> None:
    config = pocket("dpo", queries=6, draws=3, steps=2, transitions_per_step=5, epochs=3)
    assert kept_rows(config, 0) == (0, 3)
    calls = count_calls(config)
    assert calls.training == (0, 4 * 6 * 3)
    assert calls.optimizer_steps == (0, 2 * 3)  # three pairs of two steps are 12 transitions
    assert count_calls(pocket("ddpo", queries=6, draws=3, steps=2, transitions_per_step=5)).optimizer_steps == (2, 2)
    fixed = pocket("dpo", queries=6, draws=3, steps=2, equal="steps", optimizer_steps=4, epochs=3)
    assert (count_calls(fixed).training, count_calls(fixed).optimizer_steps) == ((0, 4 * 6), (0, 4))


@pytest.mark.parametrize("algorithm", ["pg", "draft1"])
def test_steps_that_sample_anew_come_at_the_pace_of_a_run(algorithm: str) -> None:
    """A draw brings 60 transitions and a step takes 100: two draws, one, and the one that is left."""
    values = {"samples": 3, "steps": 20, "transitions_per_step": 100}
    calls = count_calls(pocket(algorithm, queries=12, draws=4, **values))
    assert calls.optimizer_steps == (3, 3)
    assert calls.training == ((12,) * 2 if algorithm == "draft1" else (240,) * 2)
    shorter = count_calls(pocket(algorithm, queries=15, draws=4, **values))  # the last round is of one draw
    assert shorter.optimizer_steps == (4, 4)


@pytest.mark.parametrize(
    ("algorithm", "with_gradient", "without"), [("ddpo", 1, 0), ("pg", 1, 0), ("dpok", 1, 1), ("dpo", 2, 2)]
)
def test_calls_of_a_loss(algorithm: str, with_gradient: int, without: int) -> None:
    made = Registry("algorithm").get(algorithm)()
    found = loss_cost(made)
    assert (found.with_gradient, found.without) == (with_gradient, without)


def test_a_loss_that_does_not_run_is_refused() -> None:
    class Broken:
        pairs = False

        def loss(self, policy: Any, batch: Any) -> Any:
            raise RuntimeError("no")

    with pytest.raises(UserError, match=r"broken does not run.*no.*b2bench check"):
        loss_cost(Broken())


def test_the_papers_calls() -> None:
    config = paper()
    assert config.queries == 25_600
    calls = count_calls(config)
    assert calls.sampling == 25_600 * 20
    assert calls.training == (2 * 25_600 * 20,) * 2
    assert calls.optimizer_steps == (20 * 20,) * 2
    assert calls.equivalents == ((1 + 3 * 2) * 25_600 * 20,) * 2
    dpok = count_calls(paper("dpok"))  # as many calls of the reference, without a backward pass
    assert dpok.equivalents == ((1 + (3 + 1) * 2) * 25_600 * 20,) * 2
    assert calls.evaluation == (5 * (1600 + 450) + 4 * 12) * 20  # after the first, the pretrained model on 12 paths
    with_b2 = count_calls(paper(wrapper="b2"))
    assert with_b2.sampling < calls.sampling
    assert with_b2.training[1] < calls.training[1]
    # a branch of five leaves at tau = 14: six shared steps, then 14 of each leaf
    first = count_calls(replace(paper(wrapper="b2"), queries=1280))
    assert first.sampling == 256 * (6 + 5 * 14)


# -- memory ------------------------------------------------------------------------------------------------


def test_a_line_and_its_inverse() -> None:
    line = Line.through(30, 50)
    assert (line.at(1), line.at(2), line.at(5)) == (30, 50, 110)
    assert [line.largest(space) for space in (5, 29, 30, 109, 110)] == [0, 0, 1, 4, 5]


def test_pocket_is_measured_from_its_own_configurations() -> None:
    config = pocket()
    found = measure(config)
    assert 1.5e6 < found.parameters["UNet"] < 1.7e6  # as the model card says
    assert found.image_bytes == 4 * 3 * 64 * 64
    for line in (found.sampling, found.training, found.checkpointed, found.decoding):
        assert 0 < line.at(1) < line.at(2) < line.at(16)
    assert found.sampling.at(4) < found.checkpointed.at(4) < found.training.at(4)
    assert found.call_flops < found.training_flops < found.checkpointed_flops
    assert {judge.name for judge in judges(config)[0]} == {
        "CLIP scorer scorer-training",
        "CLIP scorer scorer-heldout",
        "classifier",
    }


@pytest.mark.parametrize("algorithm", ["ddpo", "dpo"])
@pytest.mark.parametrize("gib", [0.4, 2.0])
def test_what_is_said_to_fit_fits(algorithm: str, gib: float) -> None:
    size = {"ddpo": 3200, "dpo": 2 * 640}[algorithm]  # a third of a round
    config = pocket(algorithm, queries=4800, draws=480, samples=5, eval_images=200, transitions_per_step=size)
    footprint = measure(config)
    batches = fitting(gib * GIB, config, footprint)
    space = 0.85 * gib * GIB - resident_bytes(config, footprint, "fp32")
    for name, taken in phase_bytes(config, footprint, batches, "fp32").items():
        assert taken <= space, name
    for name in ("sampling", "training", "decoding"):  # one row more does not, or has no use
        rows = getattr(batches, name)
        more = phase_bytes(config, footprint, replace(batches, **{name: rows + 1}), "fp32")[name]
        assert more > space or rows in (2400, 3200, 640), name
    half = fitting(gib * GIB, config, footprint, precision="bf16", checkpointing=batches.checkpointing)
    assert half.sampling >= batches.sampling
    assert half.training >= batches.training


def test_what_cannot_fit_is_refused_with_what_it_needs() -> None:
    config = pocket()
    with pytest.raises(UserError, match=r"0.01 GiB are too little for pocket in fp32: .*needs 0\.\d+ GiB"):
        fitting(0.01 * GIB, config, measure(config))


@pytest.mark.slow
def test_what_fits_nowhere_takes_no_less_than_on_the_smallest_gpu_that_it_fits() -> None:
    config = resolve(
        algorithm="ddpo", wrapper="vanilla", reward="clipscore", backbone="sd14", queries=2400, seed=0, values={}
    )
    small, fits = (estimate([config], vram=gib * GIB) for gib in (8, 12))
    (refused,) = (fit for fit in small.fits if fit.precision == "fp32")
    assert (refused.batches, bool(refused.refused)) == (None, True)
    assert small.cells[0].hours == fits.cells[0].hours


@pytest.mark.parametrize(("wrapper", "bound"), [("vanilla", ""), ("b2", "≤ ")])
def test_the_table_of_calls_has_forward_equivalents(wrapper: str, bound: str) -> None:
    config = resolve(
        algorithm="dpok", wrapper=wrapper, reward="clipscore", backbone="pocket", queries=2400, seed=0, values={}
    )
    found = estimate([config])
    (column,) = [column for column in calls_table(found).columns if column.header == "as forwards"]
    calls = found.cells[0].calls
    # half of dpok's training calls are of the reference, without a gradient; one with a gradient counts as three
    assert list(column.cells) == [f"{bound}{calls.sampling + calls.training[1] // 2 * (1 + 3):,}"]


def kept_images(config: RunConfig) -> int:
    """The number of image files that an estimate names; they have the room that they take uncompressed."""
    (found,) = (item for item in disk_bytes(config, measure(config)).items() if "image files" in item[0])
    count = int(found[0].split()[2])
    assert found[1] == count * 3 * 64 * 64  # pocket's
    return count


def test_the_rewards_gradient_keeps_the_decoders_activations() -> None:
    """The slope is that of two graphs: a peak of two images is twice that of one."""
    from b2bench.estimate.memory import Shapes

    shapes = Shapes.stable_diffusion()
    shapes.autoencoder.requires_grad_(False)
    one, two = (shapes.decoding(images, gradient=True) for images in (1, 2))
    assert two.bytes == pytest.approx(2 * one.bytes, rel=0.02)
    assert one.bytes > 5 * shapes.decoding(1).bytes
    config = pocket("draft1")
    footprint = measure(config)
    kept, usual = (training_line(each, footprint, checkpointing=False) for each in (config, pocket()))
    assert kept.each == usual.each + footprint.decoding_kept.each
    [cell] = estimate([config]).cells
    calls = count_calls(config)
    seconds = calls.training[0] * footprint.decoding_kept_flops / footprint.call_flops / estimate([config]).throughput
    assert cell.hours[0] - hours(calls, footprint, estimate([config]).throughput)[0] == pytest.approx(seconds / 3600)
    assert "draft1's backward pass through clipscore" in estimate([config]).uncounted


def test_a_reward_elsewhere_takes_no_memory_of_training() -> None:
    here, footprint = pocket(), measure(pocket())
    taken = sum(judge.bytes or 0 for judge in judges(here)[0])
    for device, freed in (("auto", 0), ("cuda:0", 0), ("cpu", taken), ("cuda:1", taken)):
        away = replace(here, settings=replace(here.settings, reward_device=device))
        assert resident_bytes(here, footprint, "fp32") - resident_bytes(away, footprint, "fp32") == freed > -1


def test_whole_groups_are_trained_on_in_whole() -> None:
    config = pocket("dgpo", samples=2, draws=4)
    footprint = measure(config)
    resident, row = resident_bytes(config, footprint, "fp32"), training_line(config, footprint, True).each
    assert fitting(resident + 3.5 * row, config, footprint, checkpointing=True, margin=0.0).training == 2
    with pytest.raises(UserError, match=r"training.* needs"):
        fitting(resident + 1.5 * row, config, footprint, checkpointing=True, margin=0.0)
    one, two = (MicroBatches(1, rows, 1, checkpointing=True) for rows in (1, 2))
    assert phase_bytes(config, footprint, one, "fp32") == phase_bytes(config, footprint, two, "fp32")


def test_no_more_rows_are_counted_than_a_run_has() -> None:
    own = own_micro_batches(pocket("dpo", micro_batch=96, transitions_per_step=6, draws=2, samples=2))
    assert (own.sampling, own.training, own.decoding) == (4, 3, 4)


def test_what_vram_chooses_is_not_set_beside_it() -> None:
    for name in ("micro_batch", "run.gradient_checkpointing"):
        with pytest.raises(UserError, match=f"and {name.rpartition('.')[2]} is set, too"):
            within(pocket(), 24.0, [name])
    assert within(pocket(), 24.0, ["lr"]).settings.micro_batch >= 1


def test_a_plugin_wrapper_may_keep_less() -> None:
    class Mine(Vanilla):
        def select(self, trajectories: Any) -> Any:
            return trajectories.advantage > 0

    config = pocket()
    assert kept_rows(config, 0) == (4, 4)
    assert kept_rows(replace(config, wrapper=Mine()), 0) == (0, 4)


def test_sample_images_are_files() -> None:
    assert kept_images(pocket()) == 9  # of 3 evaluations of 3 images
    assert kept_images(pocket(sample_images=2)) == 6
    assert kept_images(pocket(sample_images=0)) == 0


@pytest.mark.slow
def test_the_papers_figures() -> None:
    config = paper()
    found = estimate([config, paper("dpo")], vram=24 * GIB)
    assert found.footprint.adapter == 797_184
    assert found.footprint.parameters == {
        "UNet": 859_520_964,
        "text encoder": 123_060_480,
        "autoencoder": 83_653_863,
    }
    assert [(judge.name, judge.parameters) for judge in found.judges] == [("CLIP ViT-H-14", 986_109_441)]
    assert found.host["trajectories of a round"] == 1280 * 21 * 4 * 64 * 64 * 4
    assert found.disk["LoRA weights"] == 4 * 797_184
    full = {fit.algorithms: fit.batches for fit in found.fits if fit.precision == "fp32"}
    ddpo, dpo = full["ddpo",], full["dpo",]
    assert ddpo is not None
    assert dpo is not None
    assert ddpo.checkpointing
    assert ddpo.training // 2 == dpo.training  # two graphs of a pair
    assert any("96 rows" in warning for warning in found.warnings)


# -- hours -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_checkpointing_that_one_algorithm_needs_costs_another_nothing() -> None:
    alone, beside = (pocket(name, queries=64, draws=16, samples=4, transitions_per_step=64) for name in ("ddpo", "dpo"))
    for vram in (GIB * 2 ** (step / 8) for step in range(-40, 8)):
        found = estimate([alone, beside], vram=vram, margin=0.0)
        needs = {
            name: fit.batches.checkpointing
            for fit in found.fits
            if fit.batches and fit.precision == "fp32"
            for name in fit.algorithms
        }
        if needs.get("dpo") and needs.get("ddpo") is False:  # pairs have two graphs
            break
    else:
        pytest.fail("no memory of these fits one of them alone")
    without, dpo = estimate([alone]), estimate([beside])
    assert found.checkpointing
    assert found.cells[0].hours == without.cells[0].hours
    assert found.cells[1].hours[1] > dpo.cells[0].hours[1]


@pytest.mark.slow
def test_too_few_rounds_are_said() -> None:
    def of(queries: int) -> Estimate:
        return estimate([pocket("ddpo", wrapper, queries, draws=1) for wrapper in ("vanilla", "bpt", "bs", "b2")])

    few, enough = of(6 * pocket().settings.samples), of(7 * pocket().settings.samples)
    assert not enough.warnings
    assert [text.partition(":")[0] for text in few.warnings] == ["bpt", "b2"]
    assert "at least 7 rounds" in few.warnings[0]


def test_hours_follow_the_throughput() -> None:
    config = pocket()
    slow, fast = (estimate([config], throughput=speed) for speed in (10.0, 20.0))
    assert slow.grid_hours[1] == pytest.approx(2 * fast.grid_hours[1])
    assert not slow.assumed
    cell = slow.cells[0]
    three = cell.hours[0] + 2 * cell.later[0]  # the first run alone measures the pretrained model
    assert cell.later[0] < cell.hours[0] == pytest.approx(slow.grid_hours[0])
    assert estimate([config], throughput=10.0, seeds=3).grid_hours[0] == pytest.approx(three)
    calls, footprint = count_calls(config), measure(config)
    weighed = calls.sampling + calls.evaluation + calls.training[0] * footprint.backward_calls(False)
    weighed += calls.decoded * footprint.decoding_flops / footprint.call_flops
    assert slow.cells[0].hours[0] == pytest.approx(weighed / 10 / 3600)


def test_a_trained_network_of_the_loss_counts() -> None:
    plain, valued = pocket("dpok"), pocket("dpok", value_net=True)
    footprint = measure(plain)
    assert network_parameters(plain, footprint) == 0
    networks = network_parameters(valued, footprint)
    assert networks > footprint.latent_size * 256
    grown = resident_bytes(valued, footprint, "fp32") - resident_bytes(plain, footprint, "fp32")
    assert grown == 16 * networks


def test_bertscore_of_the_paper_counts_its_models() -> None:
    config = resolve_preset(
        "paper", given={"algo": "ddpo", "reward": "bertscore"}, defaults=DEFAULTS, values={"inception": "none"}
    )
    found, uncounted = judges(config)
    assert {judge.name: judge.bytes for judge in found} == {
        "LLaVA v1.5 7B (fp16)": 2 * 7_063_427_072,
        "DeBERTa xlarge": 4 * 757_804_032,
    }
    assert any("cache" in text for text in uncounted)


def test_a_backbone_that_a_run_would_refuse_is_refused(other_pipeline: Path, tmp_path: Path) -> None:
    """By the name of its scheduler's own class, and not by what DDIM would make of its configuration."""
    import shutil

    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = tmp_path / "flow"
    shutil.copytree(other_pipeline, folder)
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    config = replace(pocket(), backbone=find_backbone(str(folder)))
    with pytest.raises(UserError, match="backbone flow: the scheduler is a FlowMatchEulerDiscreteScheduler"):
        measure(config)


@pytest.mark.parametrize("name", Registry("algorithm").names())
def test_the_calls_that_an_algorithm_declares_are_those_that_it_makes(name: str) -> None:
    made = Registry("algorithm").get(name)()
    assert loss_cost(made) == LossCost(*counted_cost(made))
    assert "row_calls" in vars(type(made))
    if name == "ddpo":
        priced = Registry("algorithm").get(name)(kl_weight=0.1)
        assert loss_cost(priced) == LossCost(*counted_cost(priced)) == LossCost(1, 1)


@pytest.mark.parametrize("told", [3, (1,), ("1", "0"), None])
def test_calls_that_are_declared_as_something_else_are_one_line(told: object) -> None:
    class Told(Registry("algorithm").get("ddpo")):  # type: ignore[misc]
        row_calls = told

    with pytest.raises(UserError, match=r"row_calls of told is .*; try two whole numbers"):
        loss_cost(Told())


def test_calls_are_not_taken_from_the_class_that_an_algorithm_inherits() -> None:
    class Twice(Registry("algorithm").get("ddpo")):  # type: ignore[misc]
        def loss(self, policy: Any, batch: Any) -> Any:
            super().loss(policy, batch)
            return super().loss(policy, batch)

    assert loss_cost(Twice()) == LossCost(2, 0)
