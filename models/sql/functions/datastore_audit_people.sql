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
