-- What a loss reports by names of its own was lost. Rows of older versions do not have it.

ALTER TABLE rounds ADD COLUMN metrics JSON;
COMMENT ON COLUMN rounds.metrics IS 'what else the loss reported, by its own names: means of the round; null if nothing';
