-- What the connector of documents.properties needs in the source, run once in its database by the owner of the tables:
--   psql <database> -f source.sql        then, in psql:  \password cdc
-- The server must run with wal_level = logical (a restart), and should bound what a slot that nobody reads may keep, for
-- instance max_slot_wal_keep_size = '50GB': beyond it the slot is lost and the snapshot must be taken again, but the disk is
-- not full.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cdc') THEN
        CREATE ROLE cdc LOGIN REPLICATION;  -- may make its slot and read the log, and nothing else
    END IF;
END $$;

-- For the snapshot; and for the pipeline, which may read a row again, and compares the index with the source.
GRANT USAGE ON SCHEMA public TO cdc;
GRANT SELECT ON public.documents TO cdc;

-- An update or delete then carries the whole old row. Without it a delete has the key only (the tenant is not known), an update
-- has a placeholder for each large column that it left alone, and a change of the key loses that column altogether.
ALTER TABLE public.documents REPLICA IDENTITY FULL;

-- Which tables are sent. To add one: the lines above for it, ALTER PUBLICATION documents_publication ADD TABLE ..., and
-- table.include.list of the connector.
CREATE PUBLICATION documents_publication FOR TABLE public.documents;
