"""``compress``: what a user asks for, and the recipe that is planned for it."""
