-- Preference tests, and the votes of their raters.

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
