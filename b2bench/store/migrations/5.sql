-- Calls with a backward pass cost more than those without. Rows of older versions do not say how many there were.

ALTER TABLE rounds ADD COLUMN denoiser_calls_gradient BIGINT;
COMMENT ON COLUMN rounds.denoiser_calls_gradient IS 'those of denoiser_calls_training that have a backward pass, as much work as three calls without';
