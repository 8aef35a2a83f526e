-- Combinations that were refused; how far updates are from on-policy.

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
COMMENT ON COLUMN refusals.benchmark_version IS 'version of b2bench';
COMMENT ON COLUMN refusals.algorithm IS 'registry key';
COMMENT ON COLUMN refusals.wrapper IS 'registry key';
COMMENT ON COLUMN refusals.backbone IS 'pocket, sd14, or a folder or hub id';
COMMENT ON COLUMN refusals.reward IS 'registry key of the reward';
COMMENT ON COLUMN refusals.prompts IS 'prompt set: template1, ... or a file';
COMMENT ON COLUMN refusals.prompts_hash IS 'content hash of the prompt set';
COMMENT ON COLUMN refusals.budget IS 'reward queries that a run would have used';
COMMENT ON COLUMN refusals.reason IS 'why, in the words of the algorithm or the wrapper';

ALTER TABLE rounds ADD COLUMN off_policy DOUBLE;
COMMENT ON COLUMN rounds.off_policy IS 'nats: the largest change of a transition''s log-prob before the first optimizer step of the round, which only rounding should make differ from 0';
