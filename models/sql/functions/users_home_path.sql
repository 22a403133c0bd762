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
