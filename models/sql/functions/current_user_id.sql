-- The person a connection acts for: the setting `datastore.user_id`, or null. A setting that was
-- set in an earlier transaction of a pooled connection reads back as '', which is nobody too.
CREATE OR REPLACE FUNCTION datastore_current_user_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('datastore.user_id', true), '')::uuid;
