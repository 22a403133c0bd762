-- Addresses of databases are the server's own business: no role that was merely granted SELECT sees
-- a row.
ALTER TABLE replicas ENABLE ROW LEVEL SECURITY;
