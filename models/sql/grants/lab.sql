GRANT SELECT, INSERT, UPDATE, DELETE ON lab_settings, lab_workspaces TO datastore_request;
