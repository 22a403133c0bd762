"""People: groups, passwords, permissions, share links, the audit, and policies on every table

Why: everyone sees, changes and runs what they may, and nothing else, by one rule in SQL; requests
run as a role that the policies bind. The roles belong to the whole cluster and may be another
database's too: they are made when missing, and left when the downgrade finds them in use.

Revision ID: 0020
Revises: 0030
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0030"
branch_labels = None
depends_on = None

# The SQL files under models/sql as they were at this revision.
SQL = [
    # roles/datastore_roles.sql
    """
-- `datastore_request`: what requests run as, bound by the policies. `datastore_analyst`: what
-- people's own SQL logins are members of. Roles belong to the whole cluster, so another database,
-- or another migration at this moment, may have made them. A database user that may not create
-- roles needs them to be there, and to be allowed to assume the first.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['datastore_request', 'datastore_analyst'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is missing, and % may not create it', wanted, current_user
                    USING ERRCODE = 'insufficient_privilege', HINT = format(
                        'Have an administrator of PostgreSQL run, but for what is there: '
                        'CREATE ROLE datastore_request NOLOGIN; CREATE ROLE datastore_analyst NOLOGIN; '
                        'GRANT datastore_request TO %I;', current_user);
        END;
    END LOOP;
    IF NOT pg_has_role(current_user, 'datastore_request', 'SET') THEN
        BEGIN
            EXECUTE format('GRANT datastore_request TO %I WITH INHERIT FALSE, SET TRUE', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION '% may not assume the role datastore_request', current_user
                USING ERRCODE = 'insufficient_privilege', HINT = format(
                    'Have an administrator of PostgreSQL run: GRANT datastore_request TO %I;',
                    current_user);
        END;
    END IF;
END
$$;
CREATE SCHEMA IF NOT EXISTS analytics;
""",
    # functions/audit_append_only.sql
    """
-- What was done stays on record, whoever asks: the server's own role too.
CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit can only be added to' USING ERRCODE = 'insufficient_privilege';
END
$$;
""",
    # functions/current_user_id.sql
    """
-- The living person that a connection acts for, or null. The person of an SQL login is read from
-- `sql_roles` by `session_user`, which the login cannot change. The setting `datastore.user_id` is
-- believed only of who may assume the role of requests anyway; one that was set in an earlier
-- transaction reads back as '', which is nobody.
CREATE OR REPLACE FUNCTION datastore_current_user_id() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
DECLARE
    wanted uuid;
BEGIN
    SELECT r.user_id INTO wanted FROM sql_roles r WHERE r.role_name = session_user;
    IF NOT FOUND AND pg_has_role(session_user, 'datastore_request', 'SET') THEN
        wanted := nullif(current_setting('datastore.user_id', true), '')::uuid;
    END IF;
    IF wanted IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT u.id FROM users u WHERE u.id = wanted AND u.disabled_at IS NULL);
END
$$;
""",
    # functions/datastore_am_admin.sql
    """
-- Whether the person that the connection acts for is an admin; for policies, once a statement.
CREATE OR REPLACE FUNCTION datastore_am_admin() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN coalesce(
        (SELECT u.admin FROM users u WHERE u.id = datastore_current_user_id()), false);
END
$$;
""",
    # functions/datastore_audit_executions.sql
    """
-- To run code on another's kernel is to act as its owner: both are put on record.
CREATE OR REPLACE FUNCTION datastore_audit_executions() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO audit (event, actor_id, actor, detail) VALUES (
        'execute_as', NEW.actor_id, (SELECT u.name FROM users u WHERE u.id = NEW.actor_id),
        jsonb_build_object(
            'execution_id', NEW.id, 'kernel_id', NEW.kernel_id,
            'run_as', (SELECT u.name FROM users u WHERE u.id = NEW.run_as_id)));
    RETURN NULL;
END
$$;
""",
    # functions/datastore_audit_permissions.sql
    """
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
""",
    # functions/datastore_create_login.sql
    """
-- Makes, or gives a new password, an SQL login of a person; who calls it must be allowed to create
-- roles. Its name and password are quoted here, since DDL takes no parameters.
CREATE OR REPLACE FUNCTION datastore_create_login(role_name text, password text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        IF NOT EXISTS (SELECT FROM sql_roles r WHERE r.role_name = datastore_create_login.role_name) THEN
            RAISE EXCEPTION 'the role % is not one that was made for a person', role_name
                USING ERRCODE = 'duplicate_object';
        END IF;
        EXECUTE format('ALTER ROLE %I PASSWORD %L', role_name, password);
    ELSE
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION '
            'NOBYPASSRLS IN ROLE datastore_analyst PASSWORD %L', role_name, password);
        EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', role_name);
        EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', role_name, '5min');
        EXECUTE format('ALTER ROLE %I SET search_path = analytics', role_name);
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
END
$$;
""",
    # functions/datastore_detach_outputs.sql
    """
-- Takes outputs out of their cells; they stay with their execution. Whoever may change the document
-- may do it, also where they would not see the row any more: an output that a file had brought
-- belongs to nothing then.
CREATE OR REPLACE FUNCTION datastore_detach_outputs(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    scope text[] := CASE current_setting('role')
        WHEN 'datastore_request' THEN datastore_my_scope('change') ELSE ARRAY['+'] END;
BEGIN
    UPDATE outputs o SET cell_id = NULL
    FROM cells x
    JOIN documents d ON d.id = x.notebook_id
    JOIN contents c ON c.id = d.content_id
    WHERE o.id = ANY (ids) AND x.id = o.cell_id AND datastore_in_scope(c.path, scope);
END
$$;
""",
    # functions/datastore_drop_login.sql
    """
-- Removes an SQL login of a person, after its connections are ended.
CREATE OR REPLACE FUNCTION datastore_drop_login(role_name text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    EXECUTE format('ALTER ROLE %I NOLOGIN', role_name);
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.usename = role_name;
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', current_database(), role_name);
    EXECUTE format('DROP ROLE %I', role_name);
END
$$;
""",
    # functions/datastore_grants.sql
    """
-- The permissions that hold for a user now: their own, their groups', everyone's. For the other
-- functions only; it is not run with their rights.
CREATE OR REPLACE FUNCTION datastore_grants(wanted_user uuid) RETURNS SETOF permissions
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT p.* FROM permissions p
    WHERE p.user_id = wanted_user AND (p.expires_at IS NULL OR p.expires_at > now())
    UNION ALL
    SELECT p.* FROM group_members m JOIN permissions p ON p.group_id = m.group_id
    WHERE m.user_id = wanted_user AND (p.expires_at IS NULL OR p.expires_at > now())
    UNION ALL
    SELECT p.* FROM permissions p
    WHERE p.subject = 'everyone' AND (p.expires_at IS NULL OR p.expires_at > now())
$$;
""",
    # functions/datastore_in_scope.sql
    """
-- Whether a path is in a scope: the first entry that is a beginning of it says so ('+') or denies
-- it ('-'); the longest come first.
CREATE OR REPLACE FUNCTION datastore_in_scope(path text, scope text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    entry text;
    place text := path || '/';
BEGIN
    IF scope IS NOT NULL THEN
        FOREACH entry IN ARRAY scope LOOP
            IF starts_with(place, substr(entry, 2)) THEN
                RETURN starts_with(entry, '+');
            END IF;
        END LOOP;
    END IF;
    RETURN false;
END
$$;
""",
    # functions/datastore_leads_to.sql
    """
-- Whether a folder is on the way to something in a scope: then it is seen, with nothing in it but
-- the way.
CREATE OR REPLACE FUNCTION datastore_leads_to(path text, scope text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    entry text;
    place text := '+' || CASE path WHEN '' THEN '' ELSE path || '/' END;
BEGIN
    IF scope IS NOT NULL THEN
        FOREACH entry IN ARRAY scope LOOP
            IF starts_with(entry, place) THEN
                RETURN true;
            END IF;
        END LOOP;
    END IF;
    RETURN path = '' AND scope IS NOT NULL;
END
$$;
""",
    # functions/datastore_may.sql
    """
-- Whether a user may do an action (read, write, execute, share) to a thing of a resource, or, with
-- no id, to things of that kind at all. This is the one rule for access: requests, websockets,
-- feeds and policies ask it, or the functions it is made of. What does not exist may nobody; admins
-- may everything but see and type into others' terminals.
CREATE OR REPLACE FUNCTION datastore_may(user_id uuid, action text, resource text, id text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asker ALIAS FOR $1;
    wanted ALIAS FOR $2;
    kind ALIAS FOR $3;
    target ALIAS FOR $4;
    is_admin boolean;
    scope text[];
    place text;
    row_id uuid;
    found_row record;
BEGIN
    SELECT u.admin INTO is_admin FROM users u WHERE u.id = asker AND u.disabled_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF kind IN ('users', 'groups', 'audit') THEN
        -- Names may be seen by all; the audit by admins.
        RETURN is_admin OR (wanted = 'read' AND kind <> 'audit');
    END IF;
    IF kind = 'server' OR (kind = 'kernelspecs' AND wanted <> 'read')
        OR (kind = 'terminals' AND target IS NULL AND wanted = 'write') THEN
        -- A terminal is the account of the server: who may open one is said of the server.
        RETURN is_admin OR EXISTS (
            SELECT FROM datastore_grants(asker) p
            WHERE p.resource = 'server'
            AND CASE kind WHEN 'terminals' THEN 'execute' ELSE wanted END = ANY (p.actions));
    END IF;
    IF target IS NULL THEN
        RETURN wanted IN ('read', 'write', 'execute', 'share') AND kind IN (
            'api', 'comms', 'config', 'contents', 'csp', 'documents', 'events', 'executions',
            'kernels', 'kernelspecs', 'nbconvert', 'permissions', 'sessions', 'terminals', 'tokens');
    END IF;
    IF kind IN ('contents', 'subtree') THEN
        IF is_admin THEN
            RETURN true;
        END IF;
        place := trim(BOTH '/' FROM target);
        scope := datastore_scope(asker, wanted);
        IF kind = 'subtree' THEN
            -- All that is below, to be moved or deleted: not with what is another's, nor a home.
            RETURN datastore_in_scope(place, scope)
                AND NOT EXISTS (SELECT FROM unnest(scope) e
                    WHERE starts_with(e, '-' || CASE place WHEN '' THEN '' ELSE place || '/' END))
                AND NOT EXISTS (SELECT FROM users u WHERE u.home_path COLLATE "C" = place);
        END IF;
        RETURN datastore_in_scope(place, scope)
            OR (wanted = 'read' AND datastore_leads_to(place, scope));
    END IF;
    IF kind = 'kernels' THEN
        SELECT k.owner_id INTO found_row FROM kernels k WHERE k.id = target;
        RETURN FOUND AND (is_admin OR found_row.owner_id = asker
            OR target = ANY (datastore_shared_kernels(asker, wanted)));
    END IF;
    IF kind = 'sessions' THEN
        SELECT s.owner_id, s.kernel_id INTO found_row FROM sessions s WHERE s.id = target;
        RETURN FOUND AND (is_admin OR found_row.owner_id = asker
            OR datastore_may(asker, wanted, 'kernels', found_row.kernel_id));
    END IF;
    IF kind = 'terminals' THEN
        SELECT t.owner_id INTO found_row FROM terminals t
        WHERE t.name = target AND t.ended_at IS NULL;
        RETURN FOUND AND (found_row.owner_id = asker OR (is_admin AND wanted = 'write'));
    END IF;
    BEGIN
        row_id := target::uuid;
    EXCEPTION WHEN invalid_text_representation THEN
        RETURN false;
    END;
    IF kind = 'documents' THEN
        SELECT c.path INTO found_row
        FROM documents d JOIN contents c ON c.id = d.content_id WHERE d.id = row_id;
        RETURN FOUND AND (is_admin
            OR datastore_in_scope(found_row.path, datastore_scope(asker, wanted)));
    END IF;
    IF kind = 'executions' THEN
        SELECT e.actor_id, e.run_as_id, e.kernel_id, c.path INTO found_row
        FROM executions e
        LEFT JOIN documents d ON d.id = e.document_id
        LEFT JOIN contents c ON c.id = d.content_id
        WHERE e.id = row_id;
        IF NOT FOUND OR is_admin THEN
            RETURN FOUND;
        END IF;
        IF wanted <> 'read' THEN
            -- To answer or stop it is to act on its kernel, and one must know of it.
            RETURN datastore_may(asker, 'read', kind, target)
                AND datastore_may(asker, wanted, 'kernels', found_row.kernel_id);
        END IF;
        RETURN coalesce(found_row.actor_id = asker, false) OR found_row.run_as_id = asker
            OR coalesce(datastore_in_scope(found_row.path, datastore_scope(asker, 'read')), false)
            OR EXISTS (SELECT FROM datastore_grants(asker) p
                WHERE p.kernel_id = found_row.kernel_id AND 'read' = ANY (p.actions));
    END IF;
    IF kind = 'comms' THEN
        SELECT m.kernel_id, m.execution_id INTO found_row FROM comms m WHERE m.id = row_id;
        IF NOT FOUND OR is_admin THEN
            RETURN FOUND;
        END IF;
        RETURN datastore_may(asker, 'execute', 'kernels', found_row.kernel_id)
            OR (wanted = 'read' AND found_row.execution_id IS NOT NULL
                AND datastore_may(asker, 'read', 'executions', found_row.execution_id::text));
    END IF;
    RETURN false;
END
$$;
""",
    # functions/datastore_my_kernels.sql
    """
-- `datastore_shared_kernels` of the person that the connection acts for; for policies.
CREATE OR REPLACE FUNCTION datastore_my_kernels(wanted_action text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN datastore_shared_kernels(datastore_current_user_id(), wanted_action);
END
$$;
""",
    # functions/datastore_my_scope.sql
    """
-- `datastore_scope` of the person that the connection acts for; for policies, once a statement.
CREATE OR REPLACE FUNCTION datastore_my_scope(wanted_action text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN datastore_scope(datastore_current_user_id(), wanted_action);
END
$$;
""",
    # functions/datastore_scope.sql
    """
-- Where in the contents a user may do something: beginnings of paths, '+' allowed or '-' not, the
-- longest first; null for who is nobody. Admins: everywhere. Others: their home, and what they were
-- granted. A home within a granted folder is left out, unless it, or something in it, was itself
-- granted. The action `change` is what may write to a document: `write` or `execute`.
CREATE OR REPLACE FUNCTION datastore_scope(wanted_user uuid, wanted_action text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
DECLARE
    person record;
    wanted text[] := CASE wanted_action
        WHEN 'change' THEN ARRAY['write', 'execute'] ELSE ARRAY[wanted_action] END;
    granted text[];
    homes text[];
BEGIN
    SELECT u.admin, u.home_path || '/' AS home INTO person FROM users u
    WHERE u.id = wanted_user AND u.disabled_at IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF person.admin THEN
        RETURN ARRAY['+'];
    END IF;
    SELECT array_agg(DISTINCT CASE c.path WHEN '' THEN '' ELSE c.path || '/' END) INTO granted
    FROM datastore_grants(wanted_user) p JOIN contents c ON c.id = p.content_id
    WHERE p.actions && wanted;
    IF granted IS NOT NULL THEN
        -- By the index: what begins with a text lies between it and it with the last character.
        SELECT array_agg(DISTINCT u.home_path || '/') INTO homes
        FROM unnest(granted) g
        JOIN users u ON u.home_path COLLATE "C" >= rtrim(g, '/')
            AND u.home_path COLLATE "C" <= g || chr(1114111)
        WHERE u.id <> wanted_user AND starts_with(u.home_path || '/', g);
    END IF;
    RETURN (
        SELECT coalesce(array_agg(e ORDER BY length(e) DESC, e COLLATE "C"), '{}')
        FROM (
            SELECT '+' || g AS e FROM unnest(granted || person.home) g WHERE g IS NOT NULL
            UNION ALL
            SELECT '-' || h FROM unnest(homes) h
        ) entries
    );
END
$$;
""",
    # functions/datastore_shared_kernels.sql
    """
-- The kernels of others on which a user may do something: those granted to them, and (to read and
-- to execute) those of living sessions of a document on which they may do it. The action `granted`
-- is to read what was itself granted.
CREATE OR REPLACE FUNCTION datastore_shared_kernels(wanted_user uuid, wanted_action text)
RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
SET search_path = public, pg_temp AS $$
DECLARE
    scope text[];
BEGIN
    IF wanted_action IN ('read', 'execute') THEN
        scope := datastore_scope(wanted_user, wanted_action);
    END IF;
    RETURN array(
        SELECT p.kernel_id FROM datastore_grants(wanted_user) p
        WHERE p.kernel_id IS NOT NULL AND CASE wanted_action WHEN 'granted' THEN 'read' ELSE wanted_action END = ANY (p.actions)
        UNION
        SELECT s.kernel_id
        FROM sessions s
        JOIN documents d ON d.id = s.document_id
        JOIN contents c ON c.id = d.content_id
        WHERE s.ended_at IS NULL AND scope <> '{}' AND datastore_in_scope(c.path, scope)
    );
END
$$;
""",
    # functions/datastore_tell_access.sql
    """
-- Wakes the servers that hold connections open: what somebody may do has changed.
CREATE OR REPLACE FUNCTION datastore_tell_access() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('datastore_access', '');
    RETURN NULL;
END
$$;
""",
    # functions/users_home_path.sql
    """
-- Keeps `users.home_path` what the home's row says.
CREATE OR REPLACE FUNCTION users_home_path() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    NEW.home_path := (SELECT c.path FROM contents c WHERE c.id = NEW.home_id);
    RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION contents_home_path() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE users SET home_path = NEW.path WHERE home_id = NEW.id;
    RETURN NULL;
END
$$;
""",
    # triggers/people.sql
    """
CREATE OR REPLACE TRIGGER users_tell AFTER INSERT OR UPDATE OF disabled_at, admin, home_id ON users
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER tokens_tell AFTER UPDATE OF revoked_at, expires_at, scopes OR DELETE ON tokens
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER group_members_tell AFTER INSERT OR UPDATE OR DELETE ON group_members
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER permissions_tell AFTER INSERT OR UPDATE OR DELETE ON permissions
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER sessions_tell AFTER UPDATE OF ended_at, kernel_id, document_id ON sessions
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();
CREATE OR REPLACE TRIGGER contents_tell AFTER UPDATE OF path ON contents
FOR EACH STATEMENT EXECUTE FUNCTION datastore_tell_access();

CREATE OR REPLACE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
CREATE OR REPLACE TRIGGER permissions_audit AFTER INSERT OR UPDATE OR DELETE ON permissions
FOR EACH ROW EXECUTE FUNCTION datastore_audit_permissions();
CREATE OR REPLACE TRIGGER executions_audit AFTER INSERT ON executions
FOR EACH ROW WHEN (NEW.actor_id <> NEW.run_as_id)
EXECUTE FUNCTION datastore_audit_executions();

CREATE OR REPLACE TRIGGER users_home_path BEFORE INSERT OR UPDATE OF home_id ON users
FOR EACH ROW EXECUTE FUNCTION users_home_path();
CREATE OR REPLACE TRIGGER contents_home_path AFTER UPDATE OF path ON contents
FOR EACH ROW WHEN (NEW.type = 'directory' AND NEW.path <> OLD.path)
EXECUTE FUNCTION contents_home_path();
""",
    # views/execution_history_analytics.sql
    """
-- For people's own SQL logins: `execution_history` of what they may see.
CREATE OR REPLACE VIEW analytics.execution_history WITH (security_invoker = true) AS
SELECT * FROM public.execution_history;
""",
    # policies/access.sql
    """
-- Default deny: whoever is not the server's own role sees and changes of each table what the person
-- that the connection acts for may, whatever a query forgets to filter. Functions stand in
-- `(SELECT ...)`, so that they are called once for a statement and not for each row.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE passwords ENABLE ROW LEVEL SECURITY;
ALTER TABLE groups ENABLE ROW LEVEL SECURITY;
ALTER TABLE group_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE permissions ENABLE ROW LEVEL SECURITY;
ALTER TABLE share_links ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE sql_roles ENABLE ROW LEVEL SECURITY;
ALTER TABLE server_status ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernelspecs ENABLE ROW LEVEL SECURITY;
ALTER TABLE kernels ENABLE ROW LEVEL SECURITY;
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE contents ENABLE ROW LEVEL SECURITY;
ALTER TABLE checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_updates ENABLE ROW LEVEL SECURITY;
ALTER TABLE document_snapshots ENABLE ROW LEVEL SECURITY;
ALTER TABLE notebooks ENABLE ROW LEVEL SECURITY;
ALTER TABLE cells ENABLE ROW LEVEL SECURITY;
ALTER TABLE executions ENABLE ROW LEVEL SECURITY;
ALTER TABLE outputs ENABLE ROW LEVEL SECURITY;
ALTER TABLE input_requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE comms ENABLE ROW LEVEL SECURITY;
ALTER TABLE comm_messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE terminals ENABLE ROW LEVEL SECURITY;
ALTER TABLE config_sections ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS users_self ON users;
DROP POLICY IF EXISTS tokens_own ON tokens;
DROP POLICY IF EXISTS kernels_own ON kernels;
DROP POLICY IF EXISTS executions_own ON executions;
DROP POLICY IF EXISTS outputs_own ON outputs;
DROP POLICY IF EXISTS input_requests_own ON input_requests;
DROP POLICY IF EXISTS idempotency_keys_own ON idempotency_keys;

-- People. Names are seen by everyone who has logged in. `passwords` and `sql_roles` have no policy.
CREATE POLICY users_read ON users FOR SELECT
    USING ((SELECT datastore_current_user_id()) IS NOT NULL);
CREATE POLICY users_write ON users FOR UPDATE USING (id = (SELECT datastore_current_user_id()));
CREATE POLICY groups_read ON groups FOR SELECT
    USING ((SELECT datastore_current_user_id()) IS NOT NULL);
CREATE POLICY group_members_read ON group_members FOR SELECT
    USING (user_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY tokens_read ON tokens FOR SELECT
    USING (user_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY permissions_read ON permissions FOR SELECT
    USING (subject = 'everyone' AND (SELECT datastore_current_user_id()) IS NOT NULL
        AND resource = 'server'
        OR user_id = (SELECT datastore_current_user_id())
        OR granted_by_id = (SELECT datastore_current_user_id())
        OR EXISTS (SELECT FROM group_members m
            WHERE m.group_id = permissions.group_id
            AND m.user_id = (SELECT datastore_current_user_id()))
        OR (SELECT datastore_am_admin())
        OR EXISTS (SELECT FROM contents c WHERE c.id = permissions.content_id
            AND (permissions.subject = 'everyone'
                OR datastore_in_scope(c.path, (SELECT datastore_my_scope('share')))))
        OR EXISTS (SELECT FROM kernels k WHERE k.id = permissions.kernel_id
            AND (permissions.subject = 'everyone'
                OR k.owner_id = (SELECT datastore_current_user_id())
                OR k.id = ANY ((SELECT datastore_my_kernels('share'))::text[]))));
CREATE POLICY share_links_read ON share_links FOR SELECT
    USING (created_by_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY audit_read ON audit FOR SELECT USING ((SELECT datastore_am_admin()));

-- What everyone who has logged in sees.
CREATE POLICY kernelspecs_read ON kernelspecs FOR SELECT
    USING ((SELECT datastore_current_user_id()) IS NOT NULL);
CREATE POLICY server_status_read ON server_status FOR SELECT
    USING ((SELECT datastore_may(datastore_current_user_id(), 'read', 'server')));

-- What is one person's.
CREATE POLICY config_sections_own ON config_sections
    USING (user_id = (SELECT datastore_current_user_id()));
CREATE POLICY idempotency_keys_own ON idempotency_keys
    USING (actor_id = (SELECT datastore_current_user_id()));
CREATE POLICY terminals_read ON terminals FOR SELECT
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin()));
CREATE POLICY terminals_write ON terminals FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id()));

-- Contents, by path; a folder on the way to something that may be seen is seen.
CREATE POLICY contents_read ON contents FOR SELECT
    USING (datastore_in_scope(path, (SELECT datastore_my_scope('read')))
        OR (type = 'directory' AND datastore_leads_to(path, (SELECT datastore_my_scope('read')))));
CREATE POLICY contents_insert ON contents FOR INSERT
    WITH CHECK (datastore_in_scope(path, (SELECT datastore_my_scope('write'))));
CREATE POLICY contents_update ON contents FOR UPDATE
    USING (datastore_in_scope(path, (SELECT datastore_my_scope('write'))));
CREATE POLICY contents_delete ON contents FOR DELETE
    USING (datastore_in_scope(path, (SELECT datastore_my_scope('write'))));
CREATE POLICY checkpoints_read ON checkpoints FOR SELECT
    USING (EXISTS (SELECT FROM contents c WHERE c.id = checkpoints.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('read')))));

-- Documents: what is seen with their file. Running a cell changes them too: `change` is to write
-- or to execute.
CREATE POLICY documents_read ON documents FOR SELECT
    USING (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id));
CREATE POLICY documents_change ON documents FOR UPDATE
    USING (EXISTS (SELECT FROM contents c WHERE c.id = documents.content_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY document_updates_read ON document_updates FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_updates.document_id));
CREATE POLICY document_updates_change ON document_updates
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_updates.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY document_snapshots_read ON document_snapshots FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = document_snapshots.document_id));
CREATE POLICY document_snapshots_change ON document_snapshots
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = document_snapshots.document_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY notebooks_read ON notebooks FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = notebooks.id));
CREATE POLICY notebooks_change ON notebooks
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = notebooks.id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY cells_read ON cells FOR SELECT
    USING (EXISTS (SELECT FROM documents d WHERE d.id = cells.notebook_id));
CREATE POLICY cells_change ON cells
    USING (EXISTS (SELECT FROM documents d JOIN contents c ON c.id = d.content_id
        WHERE d.id = cells.notebook_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));

-- Kernels: their owner's, and as `datastore_shared_kernels` says. Only who may share a kernel may
-- give it a session: with that, whoever sees the session's document sees the kernel.
CREATE POLICY kernels_read ON kernels FOR SELECT
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
        OR id = ANY ((SELECT datastore_my_kernels('read'))::text[]));
CREATE POLICY kernels_insert ON kernels FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id()));
CREATE POLICY kernels_update ON kernels FOR UPDATE
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
        OR id = ANY ((SELECT datastore_my_kernels('write'))::text[]));
CREATE POLICY sessions_read ON sessions FOR SELECT
    USING (owner_id = (SELECT datastore_current_user_id())
        OR EXISTS (SELECT FROM kernels k WHERE k.id = sessions.kernel_id));
CREATE POLICY sessions_insert ON sessions FOR INSERT
    WITH CHECK (owner_id = (SELECT datastore_current_user_id())
        AND (SELECT datastore_may(datastore_current_user_id(), 'share', 'kernels', kernel_id)));
CREATE POLICY sessions_update ON sessions FOR UPDATE
    USING (owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
        OR (SELECT datastore_may(datastore_current_user_id(), 'write', 'kernels', kernel_id)))
    WITH CHECK (
        (SELECT datastore_may(datastore_current_user_id(), 'share', 'kernels', kernel_id)));

-- What ran: seen by who asked, by whose kernel ran it, with the document, and by who was granted
-- the kernel itself. Asking needs `execute` on the kernel, and on the document if there is one.
CREATE POLICY executions_read ON executions FOR SELECT
    USING (actor_id = (SELECT datastore_current_user_id())
        OR run_as_id = (SELECT datastore_current_user_id())
        OR (SELECT datastore_am_admin())
        OR EXISTS (SELECT FROM documents d WHERE d.id = executions.document_id)
        OR kernel_id = ANY ((SELECT datastore_my_kernels('granted'))::text[]));
CREATE POLICY executions_insert ON executions FOR INSERT
    WITH CHECK (actor_id = (SELECT datastore_current_user_id())
        AND (EXISTS (SELECT FROM kernels k WHERE k.id = executions.kernel_id AND k.owner_id = executions.run_as_id
                AND (k.owner_id = (SELECT datastore_current_user_id())
                    OR (SELECT datastore_am_admin())
                    OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))))
        AND (document_id IS NULL OR EXISTS (
            SELECT FROM documents d JOIN contents c ON c.id = d.content_id
            WHERE d.id = executions.document_id
            AND datastore_in_scope(c.path, (SELECT datastore_my_scope('execute'))))));
CREATE POLICY outputs_read ON outputs FOR SELECT
    USING (EXISTS (SELECT FROM executions e WHERE e.id = outputs.execution_id)
        OR EXISTS (SELECT FROM cells c WHERE c.id = outputs.cell_id));
CREATE POLICY outputs_insert ON outputs FOR INSERT
    WITH CHECK (execution_id IS NULL AND EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY outputs_update ON outputs FOR UPDATE
    USING (EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))))
    WITH CHECK (cell_id IS NULL OR EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY outputs_delete ON outputs FOR DELETE
    USING (execution_id IS NULL AND EXISTS (
        SELECT FROM cells x JOIN documents d ON d.id = x.notebook_id
        JOIN contents c ON c.id = d.content_id
        WHERE x.id = outputs.cell_id
        AND datastore_in_scope(c.path, (SELECT datastore_my_scope('change')))));
CREATE POLICY input_requests_read ON input_requests FOR SELECT
    USING (EXISTS (SELECT FROM executions e WHERE e.id = input_requests.execution_id));
CREATE POLICY input_requests_answer ON input_requests FOR UPDATE
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = input_requests.kernel_id
        AND (k.owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
            OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[]))));
CREATE POLICY comms_read ON comms FOR SELECT
    USING (EXISTS (SELECT FROM kernels k WHERE k.id = comms.kernel_id
            AND (k.owner_id = (SELECT datastore_current_user_id()) OR (SELECT datastore_am_admin())
                OR k.id = ANY ((SELECT datastore_my_kernels('execute'))::text[])))
        OR EXISTS (SELECT FROM executions e WHERE e.id = comms.execution_id));
CREATE POLICY comm_messages_read ON comm_messages FOR SELECT
    USING (EXISTS (SELECT FROM comms m WHERE m.id = comm_messages.comm_id));
""",
    # grants/datastore_roles.sql
    """
-- What the roles may do at all; the policies say to which rows. A table that is not named here is
-- closed to both: whoever adds one grants it, and gives it policies.
GRANT USAGE ON SCHEMA public TO datastore_request, datastore_analyst;
GRANT USAGE ON SCHEMA analytics TO datastore_request, datastore_analyst;
GRANT SELECT ON
    users, groups, group_members, tokens, permissions, share_links, audit, server_status,
    kernelspecs, kernels, sessions, contents, checkpoints, documents, document_updates,
    document_snapshots, notebooks, cells, executions, outputs, input_requests, comms,
    comm_messages, terminals, config_sections, idempotency_keys, execution_history
    TO datastore_request;
GRANT UPDATE (full_name, display_name, initials, avatar_url, color) ON users TO datastore_request;
GRANT INSERT, UPDATE, DELETE ON contents, document_updates, document_snapshots, notebooks, cells,
    outputs, config_sections TO datastore_request;
GRANT UPDATE ON documents, input_requests TO datastore_request;
GRANT INSERT, UPDATE ON kernels, sessions TO datastore_request;
GRANT INSERT ON executions, idempotency_keys, terminals TO datastore_request;

-- No secret and no key: not `tokens`, not `connection_info`.
GRANT SELECT ON
    users, groups, group_members, kernelspecs, sessions, contents, checkpoints, documents,
    notebooks, cells, executions, outputs, input_requests, comms, execution_history
    TO datastore_analyst;
GRANT SELECT (id, name, path, execution_state, reason, incarnation, connections, owner_id,
    server_id, created_at, last_activity, ended_at) ON kernels TO datastore_analyst;
GRANT SELECT ON ALL TABLES IN SCHEMA analytics TO datastore_request, datastore_analyst;
ALTER DEFAULT PRIVILEGES IN SCHEMA analytics
    GRANT SELECT ON TABLES TO datastore_request, datastore_analyst;

-- What tells of others is not for people's own logins; what the policies call is for all.
REVOKE ALL ON FUNCTION datastore_may(uuid, text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_scope(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_shared_kernels(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_grants(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_create_login(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_drop_login(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION datastore_detach_outputs(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION datastore_may(uuid, text, text, text) TO datastore_request;
GRANT EXECUTE ON FUNCTION datastore_detach_outputs(bigint[]) TO datastore_request;

-- The server's own role adds to the audit and reads it, and no more.
DO $$
BEGIN
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM %I', current_user);
END
$$;
""",
]

POLICIES = [
    ("audit_read", "audit"),
    ("cells_change", "cells"),
    ("cells_read", "cells"),
    ("checkpoints_read", "checkpoints"),
    ("comm_messages_read", "comm_messages"),
    ("comms_read", "comms"),
    ("config_sections_own", "config_sections"),
    ("contents_delete", "contents"),
    ("contents_insert", "contents"),
    ("contents_read", "contents"),
    ("contents_update", "contents"),
    ("document_snapshots_change", "document_snapshots"),
    ("document_snapshots_read", "document_snapshots"),
    ("document_updates_change", "document_updates"),
    ("document_updates_read", "document_updates"),
    ("documents_change", "documents"),
    ("documents_read", "documents"),
    ("executions_insert", "executions"),
    ("executions_read", "executions"),
    ("group_members_read", "group_members"),
    ("groups_read", "groups"),
    ("idempotency_keys_own", "idempotency_keys"),
    ("input_requests_answer", "input_requests"),
    ("input_requests_read", "input_requests"),
    ("kernels_insert", "kernels"),
    ("kernels_read", "kernels"),
    ("kernels_update", "kernels"),
    ("kernelspecs_read", "kernelspecs"),
    ("notebooks_change", "notebooks"),
    ("notebooks_read", "notebooks"),
    ("outputs_delete", "outputs"),
    ("outputs_insert", "outputs"),
    ("outputs_read", "outputs"),
    ("outputs_update", "outputs"),
    ("permissions_read", "permissions"),
    ("server_status_read", "server_status"),
    ("sessions_insert", "sessions"),
    ("sessions_read", "sessions"),
    ("sessions_update", "sessions"),
    ("share_links_read", "share_links"),
    ("terminals_read", "terminals"),
    ("terminals_write", "terminals"),
    ("tokens_read", "tokens"),
    ("users_read", "users"),
    ("users_write", "users"),
]

TABLES = [
    "server_status",
    "kernelspecs",
    "sessions",
    "contents",
    "checkpoints",
    "documents",
    "document_updates",
    "document_snapshots",
    "notebooks",
    "cells",
    "comms",
    "comm_messages",
    "terminals",
    "config_sections",
]

TRIGGERS = [
    ("users_tell", "users"),
    ("tokens_tell", "tokens"),
    ("sessions_tell", "sessions"),
    ("contents_tell", "contents"),
    ("executions_audit", "executions"),
    ("users_home_path", "users"),
    ("contents_home_path", "contents"),
]

FUNCTIONS = [
    "audit_append_only()",
    "datastore_am_admin()",
    "datastore_audit_executions()",
    "datastore_audit_permissions()",
    "datastore_create_login(text, text)",
    "datastore_detach_outputs(bigint[])",
    "datastore_drop_login(text)",
    "datastore_grants(uuid)",
    "datastore_in_scope(text, text[])",
    "datastore_leads_to(text, text[])",
    "datastore_may(uuid, text, text, text)",
    "datastore_my_kernels(text)",
    "datastore_my_scope(text)",
    "datastore_scope(uuid, text)",
    "datastore_shared_kernels(uuid, text)",
    "datastore_tell_access()",
    "users_home_path()",
    "contents_home_path()",
]

# Of 0001, for the downgrade.
EARLIER = [
    """
-- The person a connection acts for: the setting `datastore.user_id`, or null. A setting that was
-- set in an earlier transaction of a pooled connection reads back as '', which is nobody too.
CREATE OR REPLACE FUNCTION datastore_current_user_id() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('datastore.user_id', true), '')::uuid;
""",
    """
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
""",
]


def upgrade():
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column(
            "detail",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_pkey")),
    )
    op.create_index("audit_at_idx", "audit", ["at"], unique=False)
    op.create_table(
        "groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("name <> ''", name=op.f("groups_name_not_empty_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("groups_pkey")),
        sa.UniqueConstraint("name", name=op.f("groups_name_key")),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
            name=op.f("group_members_group_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("group_members_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("group_members_pkey")),
    )
    op.create_index(op.f("group_members_user_id_idx"), "group_members", ["user_id"], unique=False)
    op.create_table(
        "passwords",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("passwords_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("passwords_pkey")),
    )
    op.create_table(
        "sql_roles",
        sa.Column("role_name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("sql_roles_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("role_name", name=op.f("sql_roles_pkey")),
    )
    op.create_table(
        "share_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("content_id", sa.Uuid(), nullable=True),
        sa.Column("kernel_id", sa.Text(), nullable=True),
        sa.Column("actions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "'read' = ANY (actions) AND actions <@ ARRAY['read', 'write', 'execute', 'share']",
            name=op.f("share_links_actions_check"),
        ),
        sa.CheckConstraint(
            "(resource = 'contents') = (content_id IS NOT NULL) AND (resource = 'kernels') = (kernel_id IS NOT NULL)",
            name=op.f("share_links_one_target_check"),
        ),
        sa.CheckConstraint(
            "resource IN ('contents', 'kernels')", name=op.f("share_links_resource_check")
        ),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["contents.id"],
            name=op.f("share_links_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["created_by_id"], ["users.id"], name=op.f("share_links_created_by_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["kernel_id"],
            ["kernels.id"],
            name=op.f("share_links_kernel_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("share_links_pkey")),
        sa.UniqueConstraint("hash", name=op.f("share_links_hash_key")),
    )
    op.create_index(op.f("share_links_content_id_idx"), "share_links", ["content_id"], unique=False)
    op.create_index(op.f("share_links_kernel_id_idx"), "share_links", ["kernel_id"], unique=False)
    op.create_table(
        "permissions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("group_id", sa.Uuid(), nullable=True),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("content_id", sa.Uuid(), nullable=True),
        sa.Column("kernel_id", sa.Text(), nullable=True),
        sa.Column("actions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("granted_by_id", sa.Uuid(), nullable=True),
        sa.Column("share_link_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "'read' = ANY (actions) AND actions <@ ARRAY['read', 'write', 'execute', 'share']",
            name=op.f("permissions_actions_check"),
        ),
        sa.CheckConstraint(
            "(resource = 'contents') = (content_id IS NOT NULL) AND (resource = 'kernels') = (kernel_id IS NOT NULL)",
            name=op.f("permissions_one_target_check"),
        ),
        sa.CheckConstraint(
            "(subject = 'user') = (user_id IS NOT NULL) AND (subject = 'group') = (group_id IS NOT NULL)",
            name=op.f("permissions_one_subject_check"),
        ),
        sa.CheckConstraint(
            "resource IN ('contents', 'kernels', 'server')", name=op.f("permissions_resource_check")
        ),
        sa.CheckConstraint(
            "subject IN ('user', 'group', 'everyone')", name=op.f("permissions_subject_check")
        ),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["contents.id"],
            name=op.f("permissions_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["granted_by_id"], ["users.id"], name=op.f("permissions_granted_by_id_fkey")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("permissions_group_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["kernel_id"],
            ["kernels.id"],
            name=op.f("permissions_kernel_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["share_link_id"],
            ["share_links.id"],
            name=op.f("permissions_share_link_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("permissions_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("permissions_pkey")),
    )
    op.create_index(op.f("permissions_content_id_idx"), "permissions", ["content_id"], unique=False)
    op.create_index(
        "permissions_everyone_idx",
        "permissions",
        ["id"],
        unique=False,
        postgresql_where=sa.text("subject = 'everyone'"),
    )
    op.create_index(
        "permissions_expires_at_idx",
        "permissions",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(op.f("permissions_group_id_idx"), "permissions", ["group_id"], unique=False)
    op.create_index(op.f("permissions_kernel_id_idx"), "permissions", ["kernel_id"], unique=False)
    op.create_index(
        op.f("permissions_share_link_id_idx"), "permissions", ["share_link_id"], unique=False
    )
    op.create_index(op.f("permissions_user_id_idx"), "permissions", ["user_id"], unique=False)
    op.add_column(
        "tokens", sa.Column("kind", sa.Text(), server_default=sa.text("'token'"), nullable=False)
    )
    op.add_column("tokens", sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=True))
    op.create_index(op.f("tokens_user_id_idx"), "tokens", ["user_id"], unique=False)
    op.add_column("users", sa.Column("home_id", sa.Uuid(), nullable=True))
    op.add_column("users", sa.Column("home_path", sa.Text(collation="C"), nullable=True))
    op.create_index(op.f("users_home_id_idx"), "users", ["home_id"], unique=False)
    op.create_index("users_home_path_idx", "users", ["home_path"], unique=False)
    op.create_foreign_key(
        op.f("users_home_id_fkey"), "users", "contents", ["home_id"], ["id"], ondelete="SET NULL"
    )
    op.create_check_constraint(op.f("tokens_kind_check"), "tokens", "kind IN ('token', 'login')")
    for statement in SQL:
        op.execute(statement)


def downgrade():
    op.execute("DROP SCHEMA analytics CASCADE")
    for policy, table in POLICIES:
        op.execute(f"DROP POLICY {policy} ON {table}")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for trigger, table in TRIGGERS:
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function} CASCADE")
    op.drop_constraint(op.f("users_home_id_fkey"), "users", type_="foreignkey")
    op.drop_index("users_home_path_idx", table_name="users")
    op.drop_index(op.f("users_home_id_idx"), table_name="users")
    op.drop_column("users", "home_path")
    op.drop_column("users", "home_id")
    op.drop_index(op.f("tokens_user_id_idx"), table_name="tokens")
    op.drop_column("tokens", "scopes")
    op.drop_column("tokens", "kind")
    op.drop_index(op.f("permissions_user_id_idx"), table_name="permissions")
    op.drop_index(op.f("permissions_share_link_id_idx"), table_name="permissions")
    op.drop_index(op.f("permissions_kernel_id_idx"), table_name="permissions")
    op.drop_index(op.f("permissions_group_id_idx"), table_name="permissions")
    op.drop_index(
        "permissions_expires_at_idx",
        table_name="permissions",
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.drop_index(
        "permissions_everyone_idx",
        table_name="permissions",
        postgresql_where=sa.text("subject = 'everyone'"),
    )
    op.drop_index(op.f("permissions_content_id_idx"), table_name="permissions")
    op.drop_table("permissions")
    op.drop_index(op.f("share_links_kernel_id_idx"), table_name="share_links")
    op.drop_index(op.f("share_links_content_id_idx"), table_name="share_links")
    op.drop_table("share_links")
    op.drop_table("sql_roles")
    op.drop_table("passwords")
    op.drop_index(op.f("group_members_user_id_idx"), table_name="group_members")
    op.drop_table("group_members")
    op.drop_table("groups")
    op.drop_index("audit_at_idx", table_name="audit")
    op.drop_table("audit")
    for statement in EARLIER:
        op.execute(statement)
    op.execute(FORGET_ROLES)


# What other databases of the cluster have granted keeps the roles; so do people's SQL logins.
FORGET_ROLES = """
DO $$
DECLARE
    made text;
BEGIN
    FOREACH made IN ARRAY ARRAY['datastore_request', 'datastore_analyst'] LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', made);
        EXECUTE format('REVOKE ALL ON SCHEMA public FROM %I', made);
        BEGIN
            EXECUTE format('DROP ROLE %I', made);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege
            OR object_in_use OR undefined_object THEN
            NULL;
        END;
    END LOOP;
END
$$;
"""
