-- A new store as version 6 was last made, of before rounds had the metrics of a loss. Never changed.

CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY,
    name VARCHAR,
    benchmark_version VARCHAR NOT NULL,
    algorithm VARCHAR,
    wrapper VARCHAR,
    backbone VARCHAR NOT NULL,
    reward VARCHAR NOT NULL,
    prompts VARCHAR NOT NULL,
    prompts_hash VARCHAR,
    seed BIGINT NOT NULL,
    budget BIGINT,
    config JSON,
    config_hash VARCHAR NOT NULL,
    versions JSON,
    commit VARCHAR,
    device VARCHAR,
    threads INTEGER,
    started TIMESTAMP NOT NULL,
    finished TIMESTAMP,
    heartbeat TIMESTAMP NOT NULL,
    status VARCHAR NOT NULL CHECK (status IN ('running', 'done', 'failed', 'interrupted')),
    error VARCHAR
);
COMMENT ON COLUMN runs.run_id IS 'unique name of the run, across machines';
COMMENT ON COLUMN runs.name IS 'the name that people type; the run folder''s';
COMMENT ON COLUMN runs.benchmark_version IS 'version of the benchmark, a whole number; results of different versions don''t mix; of older runs the version of b2bench, such as 0.2.0.dev5';
COMMENT ON COLUMN runs.algorithm IS 'registry key: ddpo, pg, dpo, dpok or a plugin''s; or external, or baseline';
COMMENT ON COLUMN runs.wrapper IS 'registry key: vanilla, bpt, bs or b2; of a baseline, which: guidance-2, best-of-4, oracle';
COMMENT ON COLUMN runs.backbone IS 'pocket, sd14, or a folder or hub id';
COMMENT ON COLUMN runs.reward IS 'registry key of the reward that is trained on';
COMMENT ON COLUMN runs.prompts IS 'prompt set: template1, ... or a file';
COMMENT ON COLUMN runs.prompts_hash IS 'content hash of the prompt set';
COMMENT ON COLUMN runs.seed IS 'training seed, the replicate of all statistics';
COMMENT ON COLUMN runs.budget IS 'reward queries that the run may use';
COMMENT ON COLUMN runs.config IS 'every setting of the run';
COMMENT ON COLUMN runs.config_hash IS 'hash of config without the seed; equal within a cell';
COMMENT ON COLUMN runs.versions IS 'package -> version; b2bench''s own among them';
COMMENT ON COLUMN runs.commit IS 'git commit of the code, with -dirty if it had local changes';
COMMENT ON COLUMN runs.device IS 'cpu, cuda, ...';
COMMENT ON COLUMN runs.threads IS 'CPU threads of the process';
COMMENT ON COLUMN runs.started IS 'UTC';
COMMENT ON COLUMN runs.finished IS 'UTC; null while the run is running';
COMMENT ON COLUMN runs.heartbeat IS 'UTC; last time the run wrote';
COMMENT ON COLUMN runs.status IS 'running, done, failed or interrupted; running with an old heartbeat was killed';
COMMENT ON COLUMN runs.error IS 'why the run failed';

CREATE TABLE queries (
    run_id VARCHAR NOT NULL,
    query_index BIGINT NOT NULL,
    round INTEGER NOT NULL,
    prompt VARCHAR NOT NULL,
    group_id INTEGER,
    leaf INTEGER,
    reward DOUBLE,
    scores JSON,
    advantage DOUBLE,
    kept BOOLEAN,
    PRIMARY KEY (run_id, query_index)
);
COMMENT ON COLUMN queries.run_id IS 'runs.run_id';
COMMENT ON COLUMN queries.query_index IS '0-based number of the reward query within the run';
COMMENT ON COLUMN queries.round IS '0-based round';
COMMENT ON COLUMN queries.prompt IS 'the prompt of the image';
COMMENT ON COLUMN queries.group_id IS 'prompt draw or branch point, 0-based within the round';
COMMENT ON COLUMN queries.leaf IS '0-based place of the rollout within its group';
COMMENT ON COLUMN queries.reward IS 'the reward as the algorithm saw it, with its noise if reward_noise asked for any';
COMMENT ON COLUMN queries.scores IS 'score -> value, what was measured on the image; the reward''s without noise';
COMMENT ON COLUMN queries.advantage IS 'standard deviations: per-prompt z-score of the reward';
COMMENT ON COLUMN queries.kept IS 'whether the wrapper passed the rollout on to the loss';

CREATE TABLE rounds (
    run_id VARCHAR NOT NULL,
    round INTEGER NOT NULL,
    queries BIGINT NOT NULL,
    interval_start INTEGER,
    interval_stop INTEGER,
    kept INTEGER,
    optimizer_steps INTEGER,
    loss DOUBLE,
    ratio_mean DOUBLE,
    approx_kl DOUBLE,
    clip_fraction DOUBLE,
    grad_norm DOUBLE,
    denoiser_calls_sampling BIGINT,
    denoiser_calls_training BIGINT,
    seconds DOUBLE,
    peak_mb DOUBLE,
    off_policy DOUBLE,
    denoiser_calls_gradient BIGINT,
    PRIMARY KEY (run_id, round)
);
COMMENT ON COLUMN rounds.run_id IS 'runs.run_id';
COMMENT ON COLUMN rounds.round IS '0-based round';
COMMENT ON COLUMN rounds.queries IS 'reward queries of the run up to and with this round';
COMMENT ON COLUMN rounds.interval_start IS 'first trained denoising step, 0 is the noisiest';
COMMENT ON COLUMN rounds.interval_stop IS 'step after the last trained one';
COMMENT ON COLUMN rounds.kept IS 'rollouts that reached the loss';
COMMENT ON COLUMN rounds.optimizer_steps IS 'optimizer steps of the round';
COMMENT ON COLUMN rounds.loss IS 'mean loss of the round';
COMMENT ON COLUMN rounds.ratio_mean IS 'mean probability ratio of policy and behaviour policy';
COMMENT ON COLUMN rounds.approx_kl IS 'nats per latent dimension: half the mean squared change of log-prob, an estimate of KL(behaviour || policy)';
COMMENT ON COLUMN rounds.clip_fraction IS 'share of transitions whose ratio was clipped';
COMMENT ON COLUMN rounds.grad_norm IS 'mean L2 norm of the gradient before clipping';
COMMENT ON COLUMN rounds.denoiser_calls_sampling IS 'denoiser calls of the round for rollouts, one per row and step';
COMMENT ON COLUMN rounds.denoiser_calls_training IS 'denoiser calls of the round for the loss';
COMMENT ON COLUMN rounds.seconds IS 'wall-clock seconds of the round';
COMMENT ON COLUMN rounds.peak_mb IS 'peak memory in 2^20 bytes, of the device or else the process';
COMMENT ON COLUMN rounds.off_policy IS 'nats: the largest change of a transition''s log-prob before the first optimizer step of the round, which only rounding should make differ from 0';
COMMENT ON COLUMN rounds.denoiser_calls_gradient IS 'those of denoiser_calls_training that have a backward pass, as much work as three calls without';

CREATE TABLE evals (
    run_id VARCHAR NOT NULL,
    queries BIGINT NOT NULL,
    split VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    value DOUBLE,
    n BIGINT,
    settings JSON,
    PRIMARY KEY (run_id, queries, split, metric)
);
COMMENT ON COLUMN evals.run_id IS 'runs.run_id';
COMMENT ON COLUMN evals.queries IS 'reward queries before the evaluation; 0 is the pretrained model';
COMMENT ON COLUMN evals.split IS 'train or test prompts';
COMMENT ON COLUMN evals.metric IS 'what was measured; the trained reward goes by its own name';
COMMENT ON COLUMN evals.value IS 'mean over the images, in the metric''s unit';
COMMENT ON COLUMN evals.n IS 'images';
COMMENT ON COLUMN evals.settings IS 'what else defines the number, as N and splits of an inception score';

CREATE TABLE images (
    run_id VARCHAR NOT NULL,
    queries BIGINT NOT NULL,
    prompt VARCHAR NOT NULL,
    noise_index INTEGER NOT NULL,
    score DOUBLE,
    path VARCHAR,
    PRIMARY KEY (run_id, queries, prompt, noise_index)
);
COMMENT ON COLUMN images.run_id IS 'runs.run_id';
COMMENT ON COLUMN images.queries IS 'reward queries before the evaluation';
COMMENT ON COLUMN images.prompt IS 'the prompt of the image';
COMMENT ON COLUMN images.noise_index IS 'number of the noise, the same in every run of an eval_seed';
COMMENT ON COLUMN images.score IS 'the trained reward on the image';
COMMENT ON COLUMN images.path IS 'file, relative to the run folder; null: this image is not kept';

CREATE TABLE profiles (
    profile_id VARCHAR NOT NULL,
    started TIMESTAMP NOT NULL,
    benchmark_version VARCHAR NOT NULL,
    backbone VARCHAR NOT NULL,
    lora VARCHAR,
    reward VARCHAR NOT NULL,
    prompts VARCHAR NOT NULL,
    prompts_hash VARCHAR,
    split VARCHAR NOT NULL,
    seed BIGINT NOT NULL,
    settings JSON,
    tau INTEGER NOT NULL,
    metric VARCHAR NOT NULL,
    value DOUBLE,
    low DOUBLE,
    high DOUBLE,
    branches BIGINT,
    leaves BIGINT,
    queries BIGINT,
    PRIMARY KEY (profile_id, tau, metric)
);
COMMENT ON COLUMN profiles.profile_id IS 'unique name of the profile, across machines';
COMMENT ON COLUMN profiles.started IS 'UTC';
COMMENT ON COLUMN profiles.benchmark_version IS 'version of the benchmark, as in runs';
COMMENT ON COLUMN profiles.backbone IS 'pocket, sd14, or a folder or hub id';
COMMENT ON COLUMN profiles.lora IS 'file name and hash of the LoRA; null for the pretrained model';
COMMENT ON COLUMN profiles.reward IS 'registry key of the reward';
COMMENT ON COLUMN profiles.prompts IS 'prompt set: template1, ... or a file';
COMMENT ON COLUMN profiles.prompts_hash IS 'content hash of the prompt set';
COMMENT ON COLUMN profiles.split IS 'train or test prompts';
COMMENT ON COLUMN profiles.seed IS 'seed of prompts, noise and bootstrap';
COMMENT ON COLUMN profiles.settings IS 'what else defines the numbers: steps, eta, guidance, the reward''s settings, resamples';
COMMENT ON COLUMN profiles.tau IS 'steps to go where the branches were made, of settings.steps';
COMMENT ON COLUMN profiles.metric IS 'open_share, within_sd, total_sd, range or same_style';
COMMENT ON COLUMN profiles.value IS 'share, or in the reward''s unit; NaN where the rewards do not vary';
COMMENT ON COLUMN profiles.low IS 'lower end of the 95% bootstrap interval over branches';
COMMENT ON COLUMN profiles.high IS 'upper end';
COMMENT ON COLUMN profiles.branches IS 'branches at this tau';
COMMENT ON COLUMN profiles.leaves IS 'leaves of a branch';
COMMENT ON COLUMN profiles.queries IS 'reward queries of the whole profile, over all tau';

CREATE TABLE refusals (
    benchmark_version VARCHAR NOT NULL,
    algorithm VARCHAR NOT NULL,
    wrapper VARCHAR NOT NULL,
    backbone VARCHAR NOT NULL,
    reward VARCHAR NOT NULL,
    prompts VARCHAR NOT NULL,
    prompts_hash VARCHAR NOT NULL,
    budget BIGINT NOT NULL,
    reason VARCHAR NOT NULL,
    PRIMARY KEY (benchmark_version, algorithm, wrapper, backbone, reward, prompts_hash, budget)
);
COMMENT ON COLUMN refusals.benchmark_version IS 'version of the benchmark, as in runs';
COMMENT ON COLUMN refusals.algorithm IS 'registry key';
COMMENT ON COLUMN refusals.wrapper IS 'registry key';
COMMENT ON COLUMN refusals.backbone IS 'pocket, sd14, or a folder or hub id';
COMMENT ON COLUMN refusals.reward IS 'registry key of the reward';
COMMENT ON COLUMN refusals.prompts IS 'prompt set: template1, ... or a file';
COMMENT ON COLUMN refusals.prompts_hash IS 'content hash of the prompt set';
COMMENT ON COLUMN refusals.budget IS 'reward queries that a run would have used';
COMMENT ON COLUMN refusals.reason IS 'why, in the words of the algorithm or the wrapper';

CREATE TABLE polls (
    poll_id VARCHAR NOT NULL,
    made TIMESTAMP NOT NULL,
    benchmark_version VARCHAR NOT NULL,
    backbone VARCHAR NOT NULL,
    prompts VARCHAR NOT NULL,
    prompts_hash VARCHAR,
    eval_seed BIGINT NOT NULL,
    seed BIGINT NOT NULL,
    question VARCHAR NOT NULL,
    cells JSON NOT NULL,
    comparisons JSON NOT NULL,
    PRIMARY KEY (poll_id)
);
COMMENT ON COLUMN polls.poll_id IS 'unique name of the preference test, across machines';
COMMENT ON COLUMN polls.made IS 'UTC';
COMMENT ON COLUMN polls.benchmark_version IS 'version of the benchmark, as in runs';
COMMENT ON COLUMN polls.backbone IS 'pocket, sd14, or a folder or hub id';
COMMENT ON COLUMN polls.prompts IS 'prompt set of the cells: template1, ... or a file';
COMMENT ON COLUMN polls.prompts_hash IS 'content hash of the prompt set';
COMMENT ON COLUMN polls.eval_seed IS 'seed of the noise, that of evaluations';
COMMENT ON COLUMN polls.seed IS 'seed of the choice of comparisons, and of orders and sides';
COMMENT ON COLUMN polls.question IS 'what raters were asked';
COMMENT ON COLUMN polls.cells IS 'cell -> its runs, their seeds and config_hash; none of the pretrained model';
COMMENT ON COLUMN polls.comparisons IS 'id on the page -> kind, prompt, noise_index, repeat_of, and images: id on the page -> cell';

CREATE TABLE votes (
    poll_id VARCHAR NOT NULL,
    rater VARCHAR NOT NULL,
    comparison VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    repeat_of VARCHAR,
    prompt VARCHAR NOT NULL,
    noise_index INTEGER NOT NULL,
    shown JSON NOT NULL,
    chosen VARCHAR,
    place INTEGER,
    position INTEGER NOT NULL,
    milliseconds BIGINT,
    PRIMARY KEY (poll_id, rater, comparison)
);
COMMENT ON COLUMN votes.poll_id IS 'polls.poll_id';
COMMENT ON COLUMN votes.rater IS 'random id that the page drew; it names nobody';
COMMENT ON COLUMN votes.comparison IS 'key in polls.comparisons';
COMMENT ON COLUMN votes.kind IS 'cells: a comparison of cells; or a check: identical (one image twice), repeat (places changed)';
COMMENT ON COLUMN votes.repeat_of IS 'of a repeat: the comparison that was shown before';
COMMENT ON COLUMN votes.prompt IS 'the prompt of the images';
COMMENT ON COLUMN votes.noise_index IS 'number of the noise, as in images';
COMMENT ON COLUMN votes.shown IS 'place from the left, 0-based -> cell';
COMMENT ON COLUMN votes.chosen IS 'cell of the preferred image; null: no preference';
COMMENT ON COLUMN votes.place IS 'its place from the left, 0-based; null: no preference';
COMMENT ON COLUMN votes.position IS '0-based place of the comparison in the rater''s order';
COMMENT ON COLUMN votes.milliseconds IS 'from when the images were shown to the answer';

CREATE TABLE "schema" (version INTEGER NOT NULL);
INSERT INTO "schema" VALUES (6);
