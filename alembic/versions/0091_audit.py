"""The audit has all that is done to people, whoever does it

Why: what commands and SQL did to users, groups, tokens and logins was not on record; now triggers
record it, as they did permissions. Adds functions and triggers, changes no row.

Revision ID: 0091
Revises: 0090
"""

from alembic import op

revision = "0091"
down_revision = "0090"
branch_labels = None
depends_on = None

UP = """
-- Adds an entry to the audit, for triggers. Where nobody is named and the connection acts for no
-- person, it says which login of the database it was, and what that called itself: a command, psql.
CREATE OR REPLACE FUNCTION datastore_audit(event text, detail jsonb, by_whom uuid DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    -- Also who has just been disabled; who may write here at all may be believed.
    who uuid := coalesce(by_whom, nullif(current_setting('datastore.user_id', true), '')::uuid);
    named text := (SELECT u.name FROM users u WHERE u.id = who);
BEGIN
    IF who IS NULL THEN
        detail := detail || jsonb_build_object('by', jsonb_build_object(
            'database_user', session_user, 'application', current_setting('application_name')));
    END IF;
    INSERT INTO audit (event, actor_id, actor, detail) VALUES (event, who, named, detail);
END
$$;

-- Who was made, renamed, disabled, made an admin, put into a group, given a token or a password: by
-- whatever way, a request, a command, JupyterHub or SQL.
CREATE OR REPLACE FUNCTION datastore_audit_users() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    before jsonb;
    after jsonb := jsonb_build_object('name', NEW.name, 'admin', NEW.admin,
        'disabled', NEW.disabled_at IS NOT NULL, 'hub_name', NEW.hub_name);
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM datastore_audit('create_user', jsonb_strip_nulls(jsonb_build_object(
            'user', NEW.name, 'admin', NEW.admin, 'hub_name', NEW.hub_name)));
        RETURN NULL;
    END IF;
    before := jsonb_build_object('name', OLD.name, 'admin', OLD.admin,
        'disabled', OLD.disabled_at IS NOT NULL, 'hub_name', OLD.hub_name);
    IF after <> before THEN
        PERFORM datastore_audit('update_user', jsonb_build_object(
            'user', NEW.name,
            'changed', (SELECT jsonb_object_agg(a.key, a.value) FROM jsonb_each(after) a
                WHERE a.value <> before -> a.key),
            'before', (SELECT jsonb_object_agg(b.key, b.value) FROM jsonb_each(before) b
                WHERE b.value <> after -> b.key)));
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION datastore_audit_groups() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM datastore_audit('create_group', jsonb_strip_nulls(jsonb_build_object(
            'group', NEW.name, 'hub_name', NEW.hub_name)));
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM datastore_audit('rename_group', jsonb_build_object(
            'group', NEW.name, 'before', OLD.name));
    ELSE
        PERFORM datastore_audit('delete_group', jsonb_build_object(
            'group', OLD.name,
            'members', (SELECT coalesce(jsonb_agg(u.name ORDER BY u.name), '[]')
                FROM group_members m JOIN users u ON u.id = m.user_id WHERE m.group_id = OLD.id)));
        RETURN OLD; -- before it goes, since its members go with it
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION datastore_audit_members() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    member group_members := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    -- Not where the group has gone: who was in it is told with that.
    PERFORM datastore_audit(
        CASE TG_OP WHEN 'DELETE' THEN 'leave' ELSE 'join' END,
        jsonb_strip_nulls(jsonb_build_object(
            'group', g.name, 'hub_name', g.hub_name,
            'user', (SELECT u.name FROM users u WHERE u.id = member.user_id))))
    FROM groups g WHERE g.id = member.group_id;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION datastore_audit_tokens() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    token tokens := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    event text := CASE
        WHEN TG_OP = 'INSERT' THEN 'create_token'
        WHEN TG_OP = 'DELETE' OR NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL
            THEN CASE token.kind WHEN 'login' THEN 'end_login' ELSE 'revoke_token' END
        ELSE 'update_token' END;
BEGIN
    PERFORM datastore_audit(event, jsonb_strip_nulls(jsonb_build_object(
        'user', (SELECT u.name FROM users u WHERE u.id = token.user_id),
        'token', token.name, 'token_id', token.id, 'scopes', to_jsonb(token.scopes),
        'expires_at', token.expires_at)));
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION datastore_audit_passwords() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM datastore_audit(
        CASE TG_OP WHEN 'DELETE' THEN 'remove_password' ELSE 'set_password' END,
        jsonb_build_object('user', u.name))
    FROM users u WHERE u.id = CASE TG_OP WHEN 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION datastore_audit_links() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM datastore_audit(
        CASE TG_OP WHEN 'INSERT' THEN 'create_link' ELSE 'revoke_link' END,
        jsonb_strip_nulls(jsonb_build_object(
            'link_id', NEW.id,
            'created_by', (SELECT u.name FROM users u WHERE u.id = NEW.created_by_id),
            'path', (SELECT c.path FROM contents c WHERE c.id = NEW.content_id),
            'kernel_id', NEW.kernel_id,
            'actions', to_jsonb(NEW.actions),
            'expires_at', NEW.expires_at)));
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION datastore_audit_sql_roles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    login sql_roles := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM datastore_audit(
        CASE TG_OP WHEN 'DELETE' THEN 'drop_sql_role' ELSE 'create_sql_role' END,
        jsonb_build_object('role', login.role_name,
            'user', (SELECT u.name FROM users u WHERE u.id = login.user_id)));
    RETURN NULL;
END
$$;

-- Who gave what to whom, and who took it away, by whatever way.
CREATE OR REPLACE FUNCTION datastore_audit_permissions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    row_now permissions := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM datastore_audit(
        CASE TG_OP WHEN 'INSERT' THEN 'grant' WHEN 'DELETE' THEN 'revoke' ELSE 'change' END,
        jsonb_strip_nulls(jsonb_build_object(
            'permission_id', row_now.id,
            'subject', row_now.subject,
            'user', (SELECT u.name FROM users u WHERE u.id = row_now.user_id),
            'group', (SELECT g.name FROM groups g WHERE g.id = row_now.group_id),
            'resource', row_now.resource,
            'path', (SELECT c.path FROM contents c WHERE c.id = row_now.content_id),
            'kernel_id', row_now.kernel_id,
            'actions', to_jsonb(row_now.actions),
            'share_link_id', row_now.share_link_id,
            'expires_at', row_now.expires_at)),
        CASE TG_OP WHEN 'INSERT' THEN NEW.granted_by_id END);
    RETURN NULL;
END
$$;

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
REVOKE ALL ON FUNCTION datastore_audit(text, jsonb, uuid) FROM PUBLIC;
"""
DOWN = """
DROP TRIGGER users_audit ON users;
DROP TRIGGER groups_audit ON groups;
DROP TRIGGER groups_audit_rename ON groups;
DROP TRIGGER groups_audit_delete ON groups;
DROP TRIGGER group_members_audit ON group_members;
DROP TRIGGER tokens_audit ON tokens;
DROP TRIGGER tokens_audit_revoke ON tokens;
DROP TRIGGER tokens_audit_update ON tokens;
DROP TRIGGER tokens_audit_delete ON tokens;
DROP TRIGGER passwords_audit ON passwords;
DROP TRIGGER share_links_audit ON share_links;
DROP TRIGGER share_links_audit_revoke ON share_links;
DROP TRIGGER sql_roles_audit ON sql_roles;
-- Who gave what to whom, and who took it away, by whatever way.
CREATE OR REPLACE FUNCTION datastore_audit_permissions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    row_now permissions := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    who uuid := CASE TG_OP WHEN 'INSERT' THEN NEW.granted_by_id ELSE datastore_current_user_id() END;
BEGIN
    INSERT INTO audit (event, actor_id, actor, detail) VALUES (
        CASE TG_OP WHEN 'INSERT' THEN 'grant' WHEN 'DELETE' THEN 'revoke' ELSE 'change' END,
        who,
        (SELECT u.name FROM users u WHERE u.id = who),
        jsonb_strip_nulls(jsonb_build_object(
            'permission_id', row_now.id,
            'subject', row_now.subject,
            'user', (SELECT u.name FROM users u WHERE u.id = row_now.user_id),
            'group', (SELECT g.name FROM groups g WHERE g.id = row_now.group_id),
            'resource', row_now.resource,
            'path', (SELECT c.path FROM contents c WHERE c.id = row_now.content_id),
            'kernel_id', row_now.kernel_id,
            'actions', to_jsonb(row_now.actions),
            'share_link_id', row_now.share_link_id,
            'expires_at', row_now.expires_at)));
    RETURN NULL;
END
$$;

DROP FUNCTION datastore_audit_users();
DROP FUNCTION datastore_audit_groups();
DROP FUNCTION datastore_audit_members();
DROP FUNCTION datastore_audit_tokens();
DROP FUNCTION datastore_audit_passwords();
DROP FUNCTION datastore_audit_links();
DROP FUNCTION datastore_audit_sql_roles();
DROP FUNCTION datastore_audit(text, jsonb, uuid);
"""


def set_timeouts():
    # A migration waits rather for the next attempt than with the whole service behind it.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("SET LOCAL statement_timeout = '5min'")


def upgrade():
    set_timeouts()
    op.execute(UP)


def downgrade():
    set_timeouts()
    op.execute(DOWN)
