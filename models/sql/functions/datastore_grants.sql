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
