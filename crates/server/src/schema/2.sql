-- Which change the running daemon has said that it took up.
ALTER TABLE server ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0;
-- When Apple's devices connect by themselves; none: by hand. JSON.
ALTER TABLE device ADD COLUMN on_demand TEXT;
-- The same for the files of a password.
ALTER TABLE user ADD COLUMN on_demand TEXT;
