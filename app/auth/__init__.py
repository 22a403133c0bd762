"""Who asks, and whether they may: identity by token, and what each route must declare."""
