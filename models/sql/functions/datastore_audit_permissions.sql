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
