-- Nothing of these for a role that is merely granted SELECT: they tell of everybody's records.
ALTER TABLE changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE presence ENABLE ROW LEVEL SECURITY;
ALTER TABLE feed_epoch ENABLE ROW LEVEL SECURITY;
ALTER TABLE feed_marks ENABLE ROW LEVEL SECURITY;
