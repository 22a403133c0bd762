CREATE OR REPLACE TRIGGER users_tell AFTER INSERT OR UPDATE OF disabled_at, admin, home_id ON users
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER tokens_tell AFTER UPDATE OF revoked_at, expires_at, scopes OR DELETE ON tokens
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER group_members_tell AFTER INSERT OR UPDATE OR DELETE ON group_members
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER permissions_tell AFTER INSERT OR UPDATE OR DELETE ON permissions
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
-- A kernel is seen with its session's document, and so is what ran in it.
CREATE OR REPLACE TRIGGER sessions_tell
AFTER INSERT OR UPDATE OF ended_at, kernel_id, document_id ON sessions
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER documents_tell AFTER DELETE ON documents
FOR EACH ROW EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER contents_tell AFTER UPDATE OF path ON contents
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();

CREATE OR REPLACE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
CREATE OR REPLACE TRIGGER permissions_audit AFTER INSERT OR UPDATE OR DELETE ON permissions
FOR EACH ROW EXECUTE FUNCTION datastore_audit_permissions();
CREATE OR REPLACE TRIGGER users_audit
AFTER INSERT OR UPDATE OF name, admin, disabled_at, hub_name ON users
FOR EACH ROW EXECUTE FUNCTION datastore_audit_users();
CREATE OR REPLACE TRIGGER groups_audit AFTER INSERT ON groups
FOR EACH ROW EXECUTE FUNCTION datastore_audit_groups();
CREATE OR REPLACE TRIGGER groups_audit_rename AFTER UPDATE OF name ON groups
FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION datastore_audit_groups();
CREATE OR REPLACE TRIGGER groups_audit_delete BEFORE DELETE ON groups
FOR EACH ROW EXECUTE FUNCTION datastore_audit_groups();
CREATE OR REPLACE TRIGGER group_members_audit AFTER INSERT OR DELETE ON group_members
FOR EACH ROW EXECUTE FUNCTION datastore_audit_members();
-- A log-in is recorded as such, and JupyterHub's tokens come and go with the hub's own record.
CREATE OR REPLACE TRIGGER tokens_audit AFTER INSERT ON tokens
FOR EACH ROW WHEN (NEW.kind = 'token') EXECUTE FUNCTION datastore_audit_tokens();
CREATE OR REPLACE TRIGGER tokens_audit_revoke AFTER UPDATE OF revoked_at ON tokens
FOR EACH ROW WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at)
EXECUTE FUNCTION datastore_audit_tokens();
CREATE OR REPLACE TRIGGER tokens_audit_update AFTER UPDATE OF user_id, hash, scopes, expires_at ON tokens
FOR EACH ROW WHEN (NEW.kind = 'token') EXECUTE FUNCTION datastore_audit_tokens();
CREATE OR REPLACE TRIGGER tokens_audit_delete AFTER DELETE ON tokens
FOR EACH ROW WHEN (OLD.revoked_at IS NULL) EXECUTE FUNCTION datastore_audit_tokens();
CREATE OR REPLACE TRIGGER passwords_audit AFTER INSERT OR UPDATE OR DELETE ON passwords
FOR EACH ROW EXECUTE FUNCTION datastore_audit_passwords();
CREATE OR REPLACE TRIGGER share_links_audit AFTER INSERT ON share_links
FOR EACH ROW EXECUTE FUNCTION datastore_audit_links();
CREATE OR REPLACE TRIGGER share_links_audit_revoke AFTER UPDATE OF revoked_at ON share_links
FOR EACH ROW WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at)
EXECUTE FUNCTION datastore_audit_links();
CREATE OR REPLACE TRIGGER sql_roles_audit AFTER INSERT OR DELETE ON sql_roles
FOR EACH ROW EXECUTE FUNCTION datastore_audit_sql_roles();
CREATE OR REPLACE TRIGGER executions_audit AFTER INSERT ON executions
FOR EACH ROW WHEN (NEW.actor_id <> NEW.run_as_id)
EXECUTE FUNCTION datastore_audit_executions();

CREATE OR REPLACE TRIGGER users_home_path BEFORE INSERT OR UPDATE OF home_id ON users
FOR EACH ROW EXECUTE FUNCTION users_home_path();
CREATE OR REPLACE TRIGGER contents_home_path AFTER UPDATE OF path ON contents
FOR EACH ROW WHEN (NEW.type = 'directory' AND NEW.path <> OLD.path)
EXECUTE FUNCTION contents_home_path();
