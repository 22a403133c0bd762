-- Forks are written by the server itself, for whom it has asked.
GRANT SELECT ON text_contents, document_versions, document_forks
    TO datastore_request, datastore_analyst;
GRANT INSERT, UPDATE ON text_contents TO datastore_request;
GRANT INSERT, DELETE ON document_versions TO datastore_request;
