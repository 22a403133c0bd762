CREATE OR REPLACE TRIGGER input_requests_once
BEFORE UPDATE ON input_requests FOR EACH ROW
WHEN (OLD.status <> 'pending')
EXECUTE FUNCTION input_requests_once();
