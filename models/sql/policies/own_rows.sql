-- Default deny for every role but the server's own: a login that is merely granted SELECT sees its
-- own rows of these tables and nothing of the others, whatever a query forgets to filter.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernels ENABLE ROW LEVEL SECURITY;
ALTER TABLE executions ENABLE ROW LEVEL SECURITY;
ALTER TABLE outputs ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE input_requests ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS users_self ON users;
CREATE POLICY users_self ON users USING (id = datastore_current_user_id());

DROP POLICY IF EXISTS tokens_own ON tokens;
CREATE POLICY tokens_own ON tokens USING (user_id = datastore_current_user_id());

DROP POLICY IF EXISTS kernels_own ON kernels;
CREATE POLICY kernels_own ON kernels USING (owner_id = datastore_current_user_id());

DROP POLICY IF EXISTS executions_own ON executions;
CREATE POLICY executions_own ON executions
    USING (datastore_current_user_id() IN (actor_id, run_as_id));

DROP POLICY IF EXISTS outputs_own ON outputs;
CREATE POLICY outputs_own ON outputs
    USING (EXISTS (SELECT FROM executions e WHERE e.id = outputs.execution_id));

DROP POLICY IF EXISTS idempotency_keys_own ON idempotency_keys;
CREATE POLICY idempotency_keys_own ON idempotency_keys
    USING (actor_id = datastore_current_user_id());

DROP POLICY IF EXISTS input_requests_own ON input_requests;
CREATE POLICY input_requests_own ON input_requests
    USING (EXISTS (SELECT FROM executions e WHERE e.id = input_requests.execution_id));
