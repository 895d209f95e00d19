-- What the first version of Ibex left on the target after a move of two tables: the schema ibex and its triggers, as pg_dump wrote
-- them down. <parent> and <child> stand for the oids of the tables.
CREATE SCHEMA ibex;
CREATE TABLE ibex.checkpoint (
    sync text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    "position" text,
    system text NOT NULL,
    database text NOT NULL,
    timeline integer NOT NULL,
    moved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE ibex.chunk (
    sync text NOT NULL,
    relid bigint NOT NULL,
    n integer NOT NULL,
    relation bigint NOT NULL,
    filenode bigint NOT NULL,
    first_block bigint NOT NULL,
    last_block bigint,
    rows bigint
);
CREATE TABLE ibex.holder (
    sync text NOT NULL,
    epoch bigint NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE ibex.migration (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE ibex.parked (
    sync text NOT NULL,
    kind text NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    name text NOT NULL,
    referenced text,
    restore text NOT NULL,
    parked_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT parked_kind_check CHECK ((kind = ANY (ARRAY['foreign_key'::text, 'trigger'::text, 'rule'::text])))
);
CREATE TABLE ibex.target_table (
    sync text NOT NULL,
    relid bigint NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    state text NOT NULL,
    replace boolean DEFAULT false NOT NULL,
    floor text,
    reason text,
    copied bigint DEFAULT 0 NOT NULL,
    captured bigint DEFAULT 0 NOT NULL,
    applied bigint DEFAULT 0 NOT NULL,
    coalesced bigint DEFAULT 0 NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT target_table_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'copying'::text, 'joining'::text, 'streaming'::text, 'held'::text])))
);
INSERT INTO ibex.checkpoint VALUES ('main', 1, '743:743:', '7710455848870844916', '16385', 1, '2026-11-21 03:06:54.11921+00');
INSERT INTO ibex.chunk VALUES ('main', <child>, 1, <child>, <child>, 0, NULL, 0);
INSERT INTO ibex.chunk VALUES ('main', <parent>, 1, <parent>, <parent>, 0, NULL, 10);
INSERT INTO ibex.migration VALUES ('target/tables/0001_apply.sql', '1c268a3387be4e1924bf066a0507e28baf136d30595b0ea6bb367088229bd7b1', '2026-11-21 03:06:51.984208+00');
INSERT INTO ibex.parked VALUES ('main', 'trigger', 'public', 'child', 'fires', NULL, 'alter table only public.child enable trigger fires', '2026-11-21 03:06:52.258527+00');
INSERT INTO ibex.target_table VALUES ('main', <child>, 'public', 'child', 'streaming', false, NULL, NULL, 0, 0, 0, 0, '2026-11-21 03:06:53.658195+00');
INSERT INTO ibex.target_table VALUES ('main', <parent>, 'public', 'parent', 'streaming', false, NULL, NULL, 10, 0, 0, 0, '2026-11-21 03:06:53.904313+00');
ALTER TABLE ONLY ibex.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (sync);
ALTER TABLE ONLY ibex.chunk
    ADD CONSTRAINT chunk_pkey PRIMARY KEY (sync, relid, n);
ALTER TABLE ONLY ibex.holder
    ADD CONSTRAINT holder_pkey PRIMARY KEY (sync);
ALTER TABLE ONLY ibex.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);
ALTER TABLE ONLY ibex.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (kind, schema_name, table_name, name);
ALTER TABLE ONLY ibex.target_table
    ADD CONSTRAINT target_table_pkey PRIMARY KEY (sync, relid);
ALTER TABLE ONLY ibex.chunk
    ADD CONSTRAINT chunk_sync_relid_fkey FOREIGN KEY (sync, relid) REFERENCES ibex.target_table(sync, relid) ON DELETE CASCADE;
ALTER TABLE ONLY ibex.holder
    ADD CONSTRAINT holder_sync_fkey FOREIGN KEY (sync) REFERENCES ibex.checkpoint(sync) ON DELETE CASCADE;
ALTER TABLE ONLY ibex.target_table
    ADD CONSTRAINT target_table_sync_fkey FOREIGN KEY (sync) REFERENCES ibex.checkpoint(sync) ON DELETE CASCADE;
ALTER TABLE public.child DISABLE TRIGGER fires;
