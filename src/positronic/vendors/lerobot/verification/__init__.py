"""What is in a LeRobot dataset, and whether all of it is there."""
