-- For people's own SQL logins: `execution_history` of what they may see.
CREATE OR REPLACE VIEW analytics.execution_history WITH (security_invoker = true) AS
SELECT * FROM public.execution_history;
