CREATE OR REPLACE TRIGGER outputs_append_only
BEFORE UPDATE ON outputs FOR EACH ROW
WHEN (ROW(NEW.execution_id, NEW.seq, NEW.output_type, NEW.name, NEW.text)
      IS DISTINCT FROM ROW(OLD.execution_id, OLD.seq, OLD.output_type, OLD.name, OLD.text))
EXECUTE FUNCTION outputs_append_only();
