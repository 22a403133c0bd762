-- Rows that are updated many times a minute: room on their pages for the next version, so that an
-- update touches no index, and vacuum after few dead rows, since the tables are small and read often.
ALTER TABLE kernels SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE documents SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE comms SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE server_status SET (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200
);
ALTER TABLE cells SET (
    fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500
);
-- Messages come and go with their comms.
ALTER TABLE comm_messages SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);
