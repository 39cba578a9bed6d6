"""What serves LeRobot checkpoints: their files, their policies, and what computes the actions."""
