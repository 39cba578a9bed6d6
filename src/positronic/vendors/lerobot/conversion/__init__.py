"""Raw episodes to a LeRobot dataset: encoded one by one, durable, assembled, published."""
