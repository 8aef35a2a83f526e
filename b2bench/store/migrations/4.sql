-- The benchmark's version is a number of its own. Rows keep what they have: the version of the package, which no
-- number equals. Besides, comments that versions 1 and 2 had otherwise and that no step has changed since.

COMMENT ON COLUMN runs.benchmark_version IS 'version of the benchmark, a whole number; results of different versions don''t mix; of older runs the version of b2bench, such as 0.2.0.dev5';
COMMENT ON COLUMN runs.versions IS 'package -> version; b2bench''s own among them';
COMMENT ON COLUMN profiles.benchmark_version IS 'version of the benchmark, as in runs';
COMMENT ON COLUMN refusals.benchmark_version IS 'version of the benchmark, as in runs';

COMMENT ON COLUMN runs.algorithm IS 'registry key: ddpo, pg, dpo, dpok or a plugin''s; or external, or baseline';
COMMENT ON COLUMN runs.wrapper IS 'registry key: vanilla, bpt, bs or b2; of a baseline, which: guidance-2, best-of-4, oracle';
COMMENT ON COLUMN runs.commit IS 'git commit of the code, with -dirty if it had local changes';
COMMENT ON COLUMN runs.device IS 'cpu, cuda, ...';
COMMENT ON COLUMN rounds.approx_kl IS 'nats per latent dimension: half the mean squared change of log-prob, an estimate of KL(behaviour || policy)';
COMMENT ON COLUMN images.noise_index IS 'number of the noise, the same in every run of an eval_seed';
COMMENT ON COLUMN images.path IS 'file, relative to the run folder; null: this image is not kept';
