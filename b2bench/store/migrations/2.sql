-- Profiles; the stored reward is what the algorithm saw; baselines are rows of runs.

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
COMMENT ON COLUMN profiles.benchmark_version IS 'version of b2bench';
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

COMMENT ON COLUMN queries.reward IS 'the reward as the algorithm saw it, with its noise if reward_noise asked for any';
COMMENT ON COLUMN queries.scores IS 'score -> value, what was measured on the image; the reward''s without noise';
COMMENT ON COLUMN runs.algorithm IS 'registry key: ddpo, pg, dpo, dpok or a plugin''s; or external, or baseline';
COMMENT ON COLUMN runs.wrapper IS 'registry key: vanilla, bpt, bs or b2; of a baseline, which: guidance-2, best-of-4, oracle';
