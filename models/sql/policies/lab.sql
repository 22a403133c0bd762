-- What JupyterLab keeps for a person is that person's alone.
ALTER TABLE lab_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE lab_workspaces ENABLE ROW LEVEL SECURITY;

CREATE POLICY lab_settings_own ON lab_settings
    USING (user_id = (SELECT datastore_current_user_id()));
CREATE POLICY lab_workspaces_own ON lab_workspaces
    USING (user_id = (SELECT datastore_current_user_id()));
