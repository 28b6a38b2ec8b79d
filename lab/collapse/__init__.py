"""Length collapse: long texts end up close together; why, how much, and what helps."""
