"""The rows of a report's tables, and what stands above them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from b2bench.leaderboard.collapse import COLLAPSE, Collapses
from b2bench.leaderboard.noise import Noise
from b2bench.leaderboard.stats import ALPHA, Estimate, Paired

from b2bench.metrics import of_kind

INCEPTION = of_kind("inception")
DIVERSITY = of_kind("diversity")
Verdict = Literal[
    "gain", "equivalent", "mixed", "inconclusive", "loss", "untested", "failed", "incomplete", "not run", "refused"
]


@dataclass(frozen=True)
class Context:
    """What is equal for all runs of a group of tables; ``budget`` in reward queries.

    ``reward_settings`` is empty for a built-in reward with the backbone's own checkpoint.
    """

    benchmark_version: str
    backbone: str
    reward: str
    prompts: str
    prompts_hash: str
    budget: int | None
    reward_settings: str = ""


@dataclass(frozen=True)
class Head:
    """What stands above the tables of a context. ``notes`` say what limits the comparison.

    ``target`` is the gain that queries are counted to: half of the largest mean gain over the pretrained model.
    ``matched`` is what every seed had gained of the cells all of whose seeds gained at least a quarter of that mean: at
    it diversity is compared. Both count from each seed's own start. ``start`` is the pretrained model's mean.
    ``images`` are those of a run's first and last evaluation, ``between`` those of the others where they are fewer.
    ``eval_seeds`` say of which noise all runs' evaluations are; empty where each seed had its own, before there was
    ``eval_seed``. ``error`` is the test set's standard error, from the spread of scores over its images, a mean over
    runs. ``margin`` is the difference of alignment within which two cells are equal; None for a share of what the
    reference gained.

    ``alpha`` is the level of each of ``looks`` looks at the same runs. ``tests`` counts the claims of the context, over
    which Holm goes, ``equalities`` those of being equal; ``tuned_tests`` and ``tuned_equalities`` are those of tuned
    cells, a family of their own. ``compute`` is the forward-equivalents at which cells are compared at equal compute.
    ``collapse`` is how far below the pretrained model a run has collapsed, None where nothing says what is far.
    ``tuned`` counts the cells whose settings ``b2bench tune`` chose, and all; ``protocols`` the searches that differ in
    how much they were given, or on which prompts; ``tuned_cells`` names those cells where not all are. ``seen_images``
    are those of an evaluation on training prompts. ``straight`` counts the cells of which no run was evaluated between
    its first and its last evaluation, so that all that lies between is a straight line, and all.
    """

    context: Context
    seeds: tuple[int, ...]
    images: tuple[int, ...]
    inception: tuple[str, ...]
    notes: tuple[str, ...]
    target: float | None = None
    matched: float | None = None
    margin: float | None = None
    error: float | None = None
    between: tuple[int, ...] = ()
    eval_seeds: tuple[int, ...] = ()
    start: float | None = None
    alpha: float = ALPHA
    looks: int = 1
    tests: int = 0
    equalities: int = 0
    tuned_tests: int = 0
    tuned_equalities: int = 0
    compute: float | None = None
    collapse: float | None = COLLAPSE
    tuned: tuple[int, int] = (0, 0)
    protocols: int = 0
    tuned_cells: tuple[str, ...] = ()
    seen_images: tuple[int, ...] = ()
    straight: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class LeaderboardRow:
    """A cell's test-split numbers at the end of training; the reference row is the pretrained model.

    ``gain`` is against the pretrained model on the same images, with the start as a covariate; ``headroom`` is
    (alignment - pretrained) / (oracle - pretrained), None where the oracle was not measured (``b2bench baseline``).
    ``failed`` counts failed runs among ``seeds``; ``lacking`` are the seeds that it should have and has not.
    ``queries`` is per run where its numbers were taken, ``denoiser_calls`` per run (sampling and training); both are
    means over seeds, and so are ``forward_equivalents``, the calls where one with a backward pass counts as three, and
    ``optimizer_steps``.

    ``ranks`` are those that the cell may have among all with these seeds; ``area`` is the area of gain: the mean over
    the budget of the alignment above the start, the primary endpoint. ``to_target`` is the reward queries at which a
    run first had gained ``Head.target``, or the budget for one of those that never had, which all but ``reached`` are:
    then it is a lower bound. A cell is
    ``over_optimised`` where the trained reward rose and the held-out score fell, as ``stats.over_optimised`` says. A
    ``control`` is of a wrapper that stands in for a part of another, or of an upper reference; it has no rank.
    ``usual``: evaluated as most are, without which it has no rank either. ``wanting`` says what keeps it from being
    compared.
    """

    algorithm: str
    wrapper: str
    label: str
    config_hash: str
    alignment: Estimate
    gain: Paired | None
    headroom: Estimate | None
    heldout: Estimate
    heldout_gain: Paired | None
    success: Estimate
    inception: dict[str, Estimate]
    diversity: dict[str, Estimate]
    seeds: tuple[int, ...]
    failed: int
    queries: float | None
    denoiser_calls: float | None
    reference: bool = False
    ranks: tuple[int, int] | None = None
    area: Paired | None = None
    to_target: Estimate | None = None
    reached: int = 0
    over_optimised: bool = False
    lacking: tuple[int, ...] = ()
    control: bool = False
    forward_equivalents: float | None = None
    usual: bool = True
    wanting: tuple[str, ...] = ()
    optimizer_steps: float | None = None
    planned: bool = False

    @property
    def identity(self) -> tuple[str, bool]:
        """What no other cell has: one of the plan and one outside of it may have the same settings."""
        return self.config_hash, self.planned


@dataclass(frozen=True)
class GeneralisationRow:
    """Alignment gained on training prompts and on unseen ones, and the second minus the first, paired by seed."""

    algorithm: str
    wrapper: str
    label: str
    seen: Paired
    unseen: Paired
    gap: Paired


@dataclass(frozen=True)
class DiversityRow:
    """What a cell's training did to each measure of diversity, by its name.

    ``change`` is against the pretrained model at the end; ``matched`` the value where the run's alignment first had
    gained ``Head.matched``, straight between evaluations, so that cells are compared at the same gain.
    """

    algorithm: str
    wrapper: str
    label: str
    alignment_gain: Paired
    change: dict[str, Paired]
    matched: dict[str, Estimate]


@dataclass(frozen=True)
class Curve:
    """A run's evaluations on test prompts, in order: reward queries, denoiser calls (nan: unknown), values.

    ``errors`` are the standard errors of the trained reward over an evaluation's images, nan where they are unknown.
    ``rounds`` and ``rewards`` are reward queries at the end of each round, and the mean reward of its training images.
    """

    algorithm: str
    wrapper: str
    label: str
    seed: int
    queries: tuple[int, ...]
    calls: tuple[float, ...]
    values: dict[str, tuple[float, ...]]
    failed: bool
    errors: tuple[float, ...] = ()
    rounds: tuple[float, ...] = ()
    rewards: tuple[float, ...] = ()


@dataclass(frozen=True)
class Detail:
    """What a cell is made of: settings that are not every cell's, runs as (seed, run id, status, error), versions.

    ``commits``, ``devices`` and ``rounds`` are those of its runs, each once; rounds are None if a run has none stored.
    ``planned``: it is of the plan's tuned cells, whose claims are a family of their own; ``other``: it is of others, or
    of both. ``tuned``: a search chose its settings, and nobody else did. ``latest``: when its last run ended.
    """

    algorithm: str
    wrapper: str
    label: str
    settings: dict[str, str]
    runs: tuple[tuple[int, str, str, str], ...]
    versions: tuple[str, ...]
    commits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    rounds: tuple[int, ...] = ()
    planned: bool = False
    other: bool = True
    tuned: bool = False
    latest: str = ""


@dataclass(frozen=True)
class PlannedContrast:
    """One of the contrasts that are asked of every algorithm, see :mod:`b2bench.leaderboard.contrasts`.

    ``delta`` is on the primary endpoint, the area of gain, with its p-value after Holm over all claims of the context;
    ``end`` is on the alignment at the end, and exploratory. ``detectable`` is the smallest true difference that these
    seeds would have shown. ``noise`` parts the spread over seeds at the end into that of images and that of training.
    """

    name: str
    delta: Paired
    end: Paired
    detectable: float | None = None
    noise: Noise | None = None


@dataclass(frozen=True)
class ContrastRow:
    """The planned contrasts of an algorithm; ``missing`` says which wrappers were not run."""

    algorithm: str
    label: str
    contrasts: tuple[PlannedContrast, ...]
    seeds: tuple[int, ...]
    failed: int
    missing: str

    def of(self, name: str) -> PlannedContrast | None:
        """Return the contrast of this name, if there is one."""
        return next((contrast for contrast in self.contrasts if contrast.name == name), None)


@dataclass(frozen=True)
class Beside:
    """What a wrapper does to a measure beside the trained reward, ``name``: the held-out score or diversity.

    ``delta`` is against vanilla at the end; ``margin`` is that of equality, None where there is none, and ``equal`` the
    p-value of equality after Holm. ``verdict`` is better, worse, equal or open.
    """

    name: str
    metric: str
    delta: Paired
    margin: float | None
    equal: float | None
    verdict: Literal["better", "worse", "equal", "open"]


@dataclass(frozen=True)
class CompatibilityCell:
    """One wrapper under an algorithm: the verdict on it, and in ``words``.

    ``delta`` is on the area of gain against ``baseline``, ``gain`` that against the pretrained model. ``margin`` is
    that of equality, None where there is none, and ``equal`` the p-value of equality after Holm. ``beside`` holds the
    other measures that the verdict looks at. ``detectable``: the smallest true difference that these seeds would have
    shown, and ``gain_detectable`` the smallest gain.
    """

    wrapper: str
    verdict: Verdict
    delta: Paired | None
    baseline: str
    failed: int
    detectable: float | None = None
    reason: str = ""  # why the two refuse each other
    words: str = ""
    gain: Paired | None = None
    margin: float | None = None
    equal: float | None = None
    beside: tuple[Beside, ...] = ()
    fell: bool = False  # all of its seeds, as collapse.Collapses.fell says
    learned: Verdict = "untested"  # the verdict on ``gain`` alone
    gain_detectable: float | None = None
    below: bool = False  # all of its seeds ended below the pretrained model
    config_hash: str = ""  # of the cell, which two rows may have
    planned: bool = False

    @property
    def identity(self) -> tuple[str, bool]:
        """That of the cell's row in the leaderboard."""
        return self.config_hash, self.planned


@dataclass(frozen=True)
class CollapseRow:
    """How many of a cell's runs collapsed. ``mean`` is that of all at the end, ``counts`` what lies beside it.

    ``fisher`` is the p-value of Fisher's exact test against vanilla of the same algorithm and settings.
    """

    algorithm: str
    wrapper: str
    label: str
    mean: Estimate
    counts: Collapses
    fisher: float | None = None


@dataclass(frozen=True)
class ComputeRow:
    """A cell at equal compute, straight between its evaluations: ``alignment`` there, ``gain``, and ``queries`` spent.

    ``delta`` is against vanilla of the same algorithm and settings.
    """

    algorithm: str
    wrapper: str
    label: str
    alignment: Estimate
    gain: Paired
    queries: Estimate
    delta: Paired | None = None


@dataclass(frozen=True)
class CompatibilityRow:
    """An algorithm's cells, in the order of the table's wrappers; ``planned``: their claims are the plan's."""

    algorithm: str
    label: str
    cells: tuple[CompatibilityCell, ...]
    planned: bool = False


@dataclass(frozen=True)
class Incomplete:
    """A run that is listed and not averaged."""

    run_id: str
    algorithm: str
    wrapper: str
    seed: int
    status: str
    queries: int
    written: str = ""  # UTC: long ago, and nobody writes it any more


@dataclass(frozen=True)
class HeadroomRow:
    """A baseline's test-split numbers. The reference row is the pretrained model as runs sample it.

    ``gain`` is against the pretrained model on the same noise; ``headroom`` is :func:`headroom` of the alignment;
    ``queries_per_image`` says how many reward queries choosing an image took; ``usual``: evaluated as
    most cells were.
    """

    name: str
    kind: str
    label: str
    config_hash: str
    alignment: Estimate
    gain: Paired
    headroom: Estimate | None
    heldout: Estimate
    heldout_gain: Paired
    success: Estimate
    inception: dict[str, Estimate]
    diversity: dict[str, Estimate]
    seeds: tuple[int, ...]
    queries_per_image: int
    reference: bool = False
    usual: bool = True


@dataclass(frozen=True)
class OpenStep:
    """What a profile of the pretrained model says of branches with ``tau`` of ``steps`` steps to go.

    ``share`` of the reward's variance is decided by these steps, with its interval [low, high]. ``within`` is the
    standard deviation of the reward within a branch, ``total`` over all, ``spread`` best minus worst of ``leaves``.
    """

    tau: int
    steps: int
    share: float
    low: float
    high: float
    within: float
    total: float
    spread: float
    branches: int
    leaves: int


@dataclass(frozen=True)
class Tables:
    """All tables of one context. ``oracle`` is the command that gives a headroom which is None; else empty.

    ``settings`` are those that all of its cells share. ``openness`` is from the latest profile of the pretrained model
    on these prompts, by falling tau (``b2bench profile``), and ``open_elsewhere`` on other ones, by their names.
    """

    head: Head
    leaderboard: tuple[LeaderboardRow, ...]
    headroom: tuple[HeadroomRow, ...]
    oracle: str
    contrasts: tuple[ContrastRow, ...]
    compatibility: tuple[CompatibilityRow, ...]
    incomplete: tuple[Incomplete, ...]
    generalisation: tuple[GeneralisationRow, ...] = ()
    diversity: tuple[DiversityRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    details: tuple[Detail, ...] = ()
    collapses: tuple[CollapseRow, ...] = ()
    compute: tuple[ComputeRow, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    openness: tuple[OpenStep, ...] = ()
    open_elsewhere: dict[str, tuple[OpenStep, ...]] = field(default_factory=dict)
